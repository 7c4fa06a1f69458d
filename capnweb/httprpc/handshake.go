package httprpc

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 says so
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// readBuffer is the size of a connection's read buffer.
const readBuffer = 16 << 10

// acceptKey is the server's proof that it speaks WebSocket.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	return base64.StdEncoding.EncodeToString(sum[:])
}

// hasToken reports whether a header field lists a token.
func hasToken(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// headReader bounds how much is read before the handshake is over.
type headReader struct {
	r    io.Reader
	left int
}

var errHeadTooLong = errors.New("the answer to the handshake is too long")

func (h *headReader) Read(p []byte) (int, error) {
	if h.left <= 0 {
		return 0, errHeadTooLong
	}
	if h.left < len(p) {
		p = p[:h.left]
	}
	n, err := h.r.Read(p)
	h.left -= n
	return n, err
}

// upgrade makes the client's part of the opening handshake. The reader it
// returns has what came after the answer.
func upgrade(conn net.Conn, u *url.URL, header http.Header) (*bufio.Reader, error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header.Clone()}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", key)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	head := &headReader{r: conn, left: 64 << 10}
	r := bufio.NewReaderSize(head, readBuffer)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return nil, &HandshakeError{StatusCode: resp.StatusCode, Body: string(body)}
	}
	switch {
	case !hasToken(resp.Header, "Upgrade", "websocket"), !hasToken(resp.Header, "Connection", "upgrade"):
		return nil, errors.New("the server switched to something other than WebSocket")
	case resp.Header.Get("Sec-WebSocket-Accept") != acceptKey(key):
		return nil, errors.New("the server's Sec-WebSocket-Accept is wrong")
	case resp.Header.Get("Sec-WebSocket-Extensions") != "", resp.Header.Get("Sec-WebSocket-Protocol") != "":
		return nil, errors.New("the server chose an extension or protocol that was not offered")
	}
	rest, _ := r.Peek(r.Buffered())
	return restReader(rest, conn), nil
}

// restReader reads what was buffered, then the connection.
func restReader(rest []byte, conn net.Conn) *bufio.Reader {
	if len(rest) == 0 {
		return bufio.NewReaderSize(conn, readBuffer)
	}
	return bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(rest)), conn), readBuffer)
}

// accept makes the server's part of the opening handshake. When it fails, it has
// answered the request.
func accept(w http.ResponseWriter, r *http.Request, protocol string) (net.Conn, *bufio.Reader, bool) {
	refuse := func(code int, text string) (net.Conn, *bufio.Reader, bool) {
		http.Error(w, text, code)
		return nil, nil, false
	}
	key := strings.TrimSpace(r.Header.Get("Sec-WebSocket-Key"))
	raw, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.Method != http.MethodGet:
		return refuse(http.StatusMethodNotAllowed, "a WebSocket is opened by a GET request")
	case r.ProtoMajor != 1 || !hasToken(r.Header, "Connection", "upgrade"):
		return refuse(http.StatusBadRequest, "a WebSocket is opened by an HTTP/1.1 request with Connection: Upgrade")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		w.Header().Set("Sec-WebSocket-Version", "13")
		return refuse(http.StatusUpgradeRequired, "this endpoint speaks WebSocket version 13")
	case err != nil || len(raw) != 16:
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes in base64")
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return refuse(http.StatusInternalServerError, "the connection cannot be taken over")
	}
	_ = conn.SetDeadline(time.Time{})
	rest, _ := rw.Reader.Peek(rw.Reader.Buffered())
	br := restReader(rest, conn)
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptKey(key) + "\r\n"
	if protocol != "" && hasToken(r.Header, "Sec-WebSocket-Protocol", protocol) {
		answer += "Sec-WebSocket-Protocol: " + protocol + "\r\n"
	}
	answer += "\r\n"
	_ = conn.SetWriteDeadline(time.Now().Add(closeTimeout * 10))
	if _, err := io.WriteString(conn, answer); err != nil {
		_ = conn.Close()
		return nil, nil, false
	}
	_ = conn.SetWriteDeadline(time.Time{})
	return conn, br, true
}
