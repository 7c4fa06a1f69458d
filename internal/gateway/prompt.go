package gateway

import (
	"regexp"
	"strings"
)

// checkSession looks at the body of a new or changed session.
func checkSession(_ *check, body map[string]any) *Error {
	delete(body, "workspaceID")
	rules, ok := body["permission"]
	if !ok || rules == nil {
		return nil
	}
	list, ok := rules.([]any)
	if !ok {
		return badBody("permission is not a list of rules", "see GET /doc")
	}
	for _, rule := range list {
		r, ok := rule.(map[string]any)
		if !ok {
			return badBody("a rule in permission is not an object", "see GET /doc")
		}
		name, _ := r["permission"].(string)
		if action, _ := r["action"].(string); action != "deny" && action != "ask" && !sandboxed[name] {
			return lifted(name)
		}
	}
	return nil
}

var colour = regexp.MustCompile(`^[a-z]{1,20}$`)

// checkProject looks at a change of the project, of which the colour of its icon is all that a client may set.
func checkProject(_ *check, body map[string]any) *Error {
	icon, ok := body["icon"].(map[string]any)
	name, _ := icon["color"].(string)
	if !ok || len(body) != 1 || len(icon) != 1 || !colour.MatchString(name) {
		return &Error{Status: 403, Code: "REFUSED", Message: "only the colour of a project's icon can be changed",
			Hint: "its name and start command are the operator's; a start command would run on the machine that runs OpenCode"}
	}
	return nil
}

// sandboxed are the permissions a client may grant: those of tools that act in the
// sandbox, or on nothing. A session's rules come after the server's in OpenCode, so
// that any other grant would lift what the server denies.
var sandboxed = map[string]bool{
	"bash": true, "read": true, "edit": true, "write": true, "apply_patch": true, "glob": true, "grep": true, "list": true,
	"external_directory": true, "task": true, "todowrite": true, "todoread": true, "question": true, "doom_loop": true, "plan_enter": true, "plan_exit": true,
}

func lifted(name string) *Error {
	return &Error{Status: 400, Code: "PERMISSION_REFUSED", Message: "a client may not grant the permission " + clip(name, 60),
		Hint: "name the tools that run in the sandbox one by one, or deny and ask only"}
}

// checkPrompt looks at the body of a prompt.
func checkPrompt(c *check, body map[string]any) *Error {
	c.noReply, _ = body["noReply"].(bool)
	if tools, ok := body["tools"]; ok && tools != nil {
		// OpenCode makes a session's permissions of these.
		m, ok := tools.(map[string]any)
		if !ok {
			return badBody("tools is not an object", "see GET /doc")
		}
		for name, on := range m {
			if on != false && !sandboxed[name] {
				return lifted(name)
			}
		}
	}
	return checkParts(c, body, true)
}

// maxParts bounds the parts of one prompt, each of which may be a file to read.
const maxParts = 256

// checkParts looks at the parts of a prompt. Only kinds that are known pass. A slash
// command's are files only.
func checkParts(c *check, body map[string]any, texts bool) *Error {
	v := body["parts"]
	if v == nil {
		return nil
	}
	parts, ok := v.([]any)
	if !ok {
		return badBody("parts is not a list", "see GET /doc")
	}
	if len(parts) > maxParts {
		return badBody("there are more than 256 parts", "send them in several prompts")
	}
	out := make([]any, 0, len(parts))
	for _, one := range parts {
		part, ok := one.(map[string]any)
		if !ok {
			return badBody("a part is not an object", "see GET /doc")
		}
		instead := []map[string]any{part}
		var err *Error
		switch kind, _ := part["type"].(string); kind {
		case "text":
		case "file":
			instead, err = checkFile(c, part)
		case "agent":
			if name, _ := part["name"].(string); !agentName.MatchString(name) {
				err = badBody("the name of an agent has characters that names do not have", "use a name from GET /agent")
			}
		case "subtask":
			for _, key := range []string{"prompt", "command", "description"} {
				if text, ok := part[key].(string); ok {
					part[key] = neutralise(text)
				}
			}
		default:
			err = badBody("a part has a type that this server does not know", "use text, file, agent or subtask")
		}
		if err != nil {
			return err
		}
		for _, p := range instead {
			if texts || p["type"] == "file" {
				out = append(out, p)
			}
		}
	}
	body["parts"] = out
	return nil
}

var agentName = regexp.MustCompile(`^[\pL\pN _.:/-]{1,100}$`)

// maxCommand bounds a command: it becomes one argument of a shell, of which Linux takes 128 KiB.
const maxCommand = 128<<10 - 1

// checkShell looks at the body of a command that a person runs in the session.
func checkShell(_ *check, body map[string]any) *Error {
	command, ok := body["command"].(string)
	if !ok || strings.TrimSpace(command) == "" {
		return badBody("command is not a text, or empty", "see GET /doc")
	}
	if strings.ContainsRune(command, 0) || len(command) > maxCommand {
		return badBody("the command has a NUL byte or is longer than 128 KiB", "put it into a file of the sandbox and run that")
	}
	return nil
}

// checkCommand looks at the body of a slash command. OpenCode puts the arguments into
// the command's template, and then runs what stands between !` and ` in a shell and
// reads the files whose names follow an @, on its own machine.
func checkCommand(c *check, body map[string]any) *Error {
	args, ok := body["arguments"].(string)
	if !ok {
		return badBody("arguments is not a text", "see GET /doc")
	}
	body["arguments"] = neutralise(args)
	return checkParts(c, body, false)
}

// shellMark is an exclamation mark that a backtick follows, or would when a template
// has taken quotes away between the two.
var shellMark = regexp.MustCompile("!([\"'\\s]*`)")

// replacement is what JavaScript's replaceAll would take for a part of the template.
var replacement = regexp.MustCompile("\\$([`'&])")

// neutralise changes a text so that OpenCode finds neither a command nor a file in
// it where a template has $ARGUMENTS or ends: a space parts the signs. To a model it
// says the same. A template of the operator's that puts $1 right behind an exclamation
// mark, or between backticks, is not covered; OpenCode has nothing to run or read
// where it lives.
func neutralise(text string) string {
	text = replacement.ReplaceAllString(text, "$$ $1")
	text = shellMark.ReplaceAllString(text, "! $1")
	var b strings.Builder
	b.Grow(len(text) + 8)
	if strings.HasPrefix(text, "`") {
		b.WriteByte(' ') // the template may end in !
	}
	var last byte
	for i := range len(text) {
		c := text[i]
		b.WriteByte(c)
		if c == '@' && !wordByte(last) && i+1 < len(text) && text[i+1] != ' ' {
			b.WriteByte(' ')
		}
		last = c
	}
	if last == '!' {
		b.WriteByte(' ') // the template may go on with a backtick
	}
	return b.String()
}

// wordByte says whether an @ behind c is none to OpenCode, as in an address of mail.
func wordByte(c byte) bool {
	return c == '_' || c == '`' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
