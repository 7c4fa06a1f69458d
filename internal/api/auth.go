package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/tongs-dev/tongs/sandbox/remote"
)

// peer is whoever has come in.
type peer struct {
	token   string // id of an issued token; "" for the host's own
	sandbox string // id of the one sandbox that it is good for; "" for all
}

type peerKey struct{}

func withPeer(r *http.Request, p *peer) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), peerKey{}, p))
}

func peerOf(r *http.Request) *peer {
	p, ok := r.Context().Value(peerKey{}).(*peer)
	if !ok {
		return &peer{token: "nobody", sandbox: "none"} // not reached: serveRPC sets it
	}
	return p
}

// maxTokenBytes is longer than any token of ours.
const maxTokenBytes = 256

// authenticate finds out who a request is from. A token in the URL is not looked at: URLs are
// written to logs.
func (s *Server) authenticate(r *http.Request) (*peer, *refusal) {
	token, given := "", false
	if values := r.Header.Values("Authorization"); len(values) > 1 {
		return nil, &refusal{400, "BAD_REQUEST", "there is more than one Authorization header", "send one"}
	} else if len(values) == 1 {
		scheme, rest, ok := strings.Cut(values[0], " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") {
			return nil, &refusal{401, string(remote.CodeUnauthorized), "the Authorization header is not `Bearer <token>`", "send the token of the file api-token in Tongs' home"}
		}
		token, given = strings.TrimSpace(rest), true
	} else if offered := offeredToken(r); offered != "" {
		token, given = offered[len(remote.ProtocolPrefix):], true
	}
	if !given {
		return nil, &refusal{401, string(remote.CodeUnauthorized), "a bearer token is needed", "send `Authorization: Bearer <token>`, with the token of the file api-token in Tongs' home"}
	}
	if len(token) <= maxTokenBytes {
		if p := s.cfg.Tokens.check(token); p != nil {
			return p, nil
		}
	}
	return nil, &refusal{401, string(remote.CodeUnauthorized), "the token is wrong, revoked or expired", "the token of this host is in the file api-token in Tongs' home"}
}

// offeredToken is the WebSocket subprotocol that carries a token, if one is offered.
func offeredToken(r *http.Request) string {
	for _, value := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); strings.HasPrefix(name, remote.ProtocolPrefix) {
				return name
			}
		}
	}
	return ""
}
