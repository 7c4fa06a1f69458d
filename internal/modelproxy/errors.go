package modelproxy

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// refuse answers with an error of our own. The object has the members that the
// SDKs look for: OpenAI's error.message and error.type, Anthropic's type and
// error.type, Google's error.code (a number) and error.status, Mistral's message.
func refuse(w http.ResponseWriter, status int, code, message string) {
	message = "tongs: " + message
	body, err := json.Marshal(map[string]any{
		"type": "error", "object": "error", "message": message, "param": nil, "code": nil,
		"error": map[string]any{"type": "tongs_error", "message": message, "code": status, "status": code},
	})
	if err != nil {
		body = []byte(`{"error":{"message":"tongs: error"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	w.Write(body) // an error here means that the client is gone
}

// refuseBody answers a request whose body could not be read.
func refuseBody(w http.ResponseWriter, err error) {
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		refuse(w, http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", fmt.Sprintf("the request has more than %d bytes", big.Limit))
		return
	}
	refuse(w, http.StatusBadRequest, "BAD_REQUEST", "the request's body cannot be read")
}

// reason is the part of an error that may be shown to the client: nothing of a
// URL, which may hold the credentials of a proxy.
func reason(err error) string {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var dns *net.DNSError
	var cert *x509.UnknownAuthorityError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return "no address for " + dns.Name
	case errors.As(err, &cert), errors.As(err, &unknown):
		return "its certificate is signed by an unknown authority: add that to the host's certificates or name it with SSL_CERT_FILE"
	case errors.As(err, &name):
		return "its certificate is for another host"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "the proxy cannot be reached"
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	}
	return "the connection failed"
}
