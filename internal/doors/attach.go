package doors

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

// attachTimeout bounds the reading of one file of a prompt.
const attachTimeout = 30 * time.Second

// maxAttachment bounds the parts that one file becomes, in bytes.
const maxAttachment = 32 << 20

// Attach reads a file that a prompt names in the sandbox of its session, and returns
// the parts to put in its place. A text and a directory become what the agent's read
// tool says of them, from which OpenCode makes what it makes of its own; pictures and
// PDFs their content. A file that cannot be read becomes a text that says so, as in
// OpenCode.
func (d *Doors) Attach(ctx context.Context, sessionID string, file gateway.File) ([]map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	box, _, err := d.reach(ctx, sessionID)
	if err != nil {
		return nil, refusal(err)
	}
	args := map[string]any{"filePath": file.Path}
	if file.Start > 0 {
		args["offset"] = file.Start
		if file.End >= file.Start {
			args["limit"] = file.End - file.Start + 1
		}
	} else if file.End > 0 {
		args["limit"] = file.End
	}
	input, err := json.Marshal(map[string]string{"filePath": file.Path})
	if err != nil {
		return nil, err
	}
	called := "Called the Read tool with the following input: " + string(input)
	name := file.Filename
	if name == "" {
		name = path.Base(file.Path)
	}
	res, err := box.RunTool(ctx, sandbox.ToolCall{Name: "read", Args: args, SessionID: sessionID}, sandbox.ToolHooks{})
	switch sandbox.CodeOf(err) {
	case "":
		if err != nil {
			return nil, refusal(err)
		}
	case sandbox.CodeConnectionLost, sandbox.CodeShuttingDown, sandbox.CodeTimeout, sandbox.CodeTooManyProcesses, sandbox.CodeProtocolMismatch:
		return nil, refusal(err)
	default:
		e := refusal(err)
		return []map[string]any{textFile(name, "Read tool failed to read "+file.Path+" with the following error: "+e.Message)}, nil
	}
	if res == nil || len(res.Output) > maxAttachment {
		return nil, tooLarge(file.Path)
	}
	if len(res.Attachments) == 0 {
		return []map[string]any{textFile(name, strings.ToValidUTF8(res.Output, "\uFFFD"))}, nil
	}
	parts := []map[string]any{{"type": "text", "synthetic": true, "text": called}}
	for _, a := range res.Attachments {
		kind, err := attachment(a)
		if err != nil {
			return nil, err
		}
		parts = append(parts, map[string]any{"type": "file", "mime": kind, "filename": name, "url": a.URL})
		if len(parts) > 4 {
			break
		}
	}
	return parts, nil
}

// textFile is a part whose content OpenCode shows to the model as that of a file read.
func textFile(name, content string) map[string]any {
	return map[string]any{"type": "file", "mime": "text/plain", "filename": name,
		"url": "data:text/plain;base64," + base64.StdEncoding.EncodeToString([]byte(content))}
}

// attachment checks what a sandbox says is a picture or a PDF, and returns its type.
func attachment(a sandbox.Attachment) (string, error) {
	bad := &gateway.Error{Status: http.StatusBadRequest, Code: "FILE_REFUSED", Message: "the file is no picture that can be decoded, although it begins as one", Hint: "ask for it in words: the agent can look at its bytes"}
	if len(a.URL) > maxAttachment {
		return "", tooLarge("it")
	}
	head, data, ok := strings.Cut(a.URL, ",")
	kind, isData := strings.CutPrefix(head, "data:")
	kind, isBase64 := strings.CutSuffix(kind, ";base64")
	if !ok || !isData || !isBase64 || kind != a.Mime || !strings.HasPrefix(kind, "image/") && kind != "application/pdf" || len(kind) > 60 {
		return "", bad
	}
	content, err := base64.StdEncoding.DecodeString(data)
	if err != nil || strings.HasPrefix(kind, "image/") && !gateway.IsPicture(content) {
		return "", bad
	}
	return kind, nil
}

func tooLarge(p string) error {
	return &gateway.Error{Status: http.StatusRequestEntityTooLarge, Code: "FILE_TOO_LARGE", Message: "the file " + clip(p, 200) + " is too large for a prompt", Hint: "name a range of its lines, or let the agent read it"}
}
