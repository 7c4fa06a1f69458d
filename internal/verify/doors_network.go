package verify

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// networkDoors lead from a sandbox to this machine, to the agent host and to other sandboxes; and
// from the agent host to sandboxes.
func networkDoors() []door {
	network := func(name string, run func(ctx context.Context, p *probe, g *ground, f Family) Cell) door {
		return door{Door: Door{Group: "between places", Name: name}, run: run}
	}
	// shut is a port that must not be there for a sandbox.
	shut := func(name, port string) door {
		return network("sandbox → "+name, func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			text, err := p.ask(ctx, g.box, "127.0.0.1", port)
			if err != nil {
				return broken("%v", err)
			}
			if strings.Contains(text, "HTTP/1.") {
				return escaped("it answered: %s", clip(text, 80))
			}
			return refused("nothing answers")
		})
	}
	return []door{
		network("sandbox → its own loopback", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			text, err := p.ask(ctx, g.box, "127.0.0.1", p.port)
			return p.judge(g, 200, text, err)
		}),
		network("sandbox → this machine's addresses", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.addresses(ctx, g)
		}),
		shut("bridge of the plugin, port 3001", "3001"),
		shut("OpenCode, port 4096", "4096"),
		shut("model proxy, port 4100", "4100"),
		shut("shell of OpenCode, port 4101", "4101"),
		network("sandbox → files of this machine and of others", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			other := ""
			if p.other != nil {
				other = p.other.session
			}
			script := "cd " + p.dir + " && ls /proc/*/root" + p.dir + " /proc/*/cwd; cat /proc/*/root" + path.Join(p.dir, whereFile) + "; cat /proc/*/environ | tr '\\0' '\\n' | grep -a CANARY; ls -R /home /tmp /mnt /media /srv | grep -a tongs-; ps ax | grep '[s]leep 600'; mount | grep -aF '" + other + "x'; cat " + whereFile
			found, err := g.box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", "(" + script + ") 2>&1"}, Dir: p.t.Project}})
			if err != nil {
				return broken("%v", err)
			}
			return p.judge(g, 200, string(found.Stdout), nil)
		}),
		network("forged client on the plugin's port", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.forge(ctx, map[string]string{"Authorization": "Bearer 00000000000000000000000000000000"})
		}),
		network("client without a token on the plugin's port", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.forge(ctx, nil)
		}),
		network("page of a browser on the plugin's port", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.forge(ctx, map[string]string{"Origin": "http://localhost:8787"})
		}),
		network("agent host → this machine's addresses", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			from := *g
			from.box, from.word = p.agent, p.agentHost
			cell := p.addresses(ctx, &from)
			return cell
		}),
		network("agent host → a model provider that is not configured", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			var seen string
			for _, route := range []string{"/nobody/v1/chat/completions", "/../" + p.port, "/http://127.0.0.1:" + p.port + "/", "http://127.0.0.1:" + p.port + "/"} {
				text, err := p.exchange(ctx, "127.0.0.1:4100", "GET "+route+" HTTP/1.1\r\nHost: 127.0.0.1:"+p.port+"\r\nConnection: close\r\n\r\n")
				if err != nil {
					return broken("%v", err)
				}
				if result, what := p.see(text, g.word); result != "" {
					return escaped("%s", what)
				}
				seen = strings.SplitN(text, "\r\n", 2)[0]
			}
			return refused("%s", seen)
		}),
		network("agent host → a shell without a session", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.shim(ctx, g, "", "effect-shim-nobody")
		}),
		network("agent host → a shell of an unknown session", func(ctx context.Context, p *probe, g *ground, _ Family) Cell {
			return p.shim(ctx, g, "ses_00000000000000000000000000", "effect-shim-unknown")
		}),
	}
}

// ask connects from a place and returns what is answered to an HTTP request; "" when nothing answers.
func (p *probe) ask(ctx context.Context, box Place, host, port string) (string, error) {
	const script = `exec 3<>"/dev/tcp/$0/$1" || exit 0; printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$0:$1" >&3; head -c 4096 <&3`
	found, err := box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"timeout", "5", "bash", "-c", script, host, port}, Dir: "/"}})
	if err != nil {
		return "", err
	}
	return string(found.Stdout), nil
}

// addresses asks each address of this machine from a place.
func (p *probe) addresses(ctx context.Context, g *ground) Cell {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return broken("%v", err)
	}
	hosts := []string{"localhost", "host.docker.internal", "169.254.169.254"}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && len(hosts) < 8 {
			hosts = append(hosts, ip.IP.String())
		}
	}
	for _, host := range hosts {
		text, err := p.ask(ctx, g.box, host, p.port)
		if err != nil {
			return broken("%v", err)
		}
		if result, what := p.see(text, g.word); result == Escaped {
			return escaped("%s, at %s", what, host)
		}
	}
	return refused("none answers with a word of its own")
}

// exchange sends text to a port of the agent host and returns the beginning of the answer.
func (p *probe) exchange(ctx context.Context, address, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := p.agent.Dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte(text)); err != nil {
		return "", err
	}
	var answer []byte
	for len(answer) < 4096 && !bytes.Contains(answer, []byte("\r\n\r\n")) {
		piece := make([]byte, 4096)
		n, err := conn.Read(piece)
		answer = append(answer, piece[:n]...)
		if err != nil {
			break // it hung up, or says no more
		}
	}
	return string(answer), nil
}

// forge connects to the plugin's port in the agent host as the host does, but is not it.
func (p *probe) forge(ctx context.Context, header map[string]string) Cell {
	text := "GET / HTTP/1.1\r\nHost: 127.0.0.1:3001\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for name, value := range header {
		text += name + ": " + value + "\r\n"
	}
	answer, err := p.exchange(ctx, "127.0.0.1:3001", text+"\r\n")
	if err != nil {
		return broken("%v", err)
	}
	response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
	switch {
	case err != nil:
		return broken("no HTTP: %q", answer)
	case response.StatusCode == http.StatusSwitchingProtocols:
		return escaped("it was taken for the host: the connection stands")
	}
	return refused("%s", response.Status)
}

// shim runs OpenCode's shell as OpenCode does.
func (p *probe) shim(ctx context.Context, g *ground, session, effect string) Cell {
	spec := sandbox.ProcessSpec{Argv: []string{"/opt/tongs/bin/tongs-shell", "-c", "touch " + path.Join(p.dir, effect)}, Dir: p.t.Project, Env: map[string]string{"TONGS_SESSION": session}}
	found, err := p.agent.Exec(ctx, sandbox.ExecSpec{ProcessSpec: spec})
	if err != nil {
		return broken("%v", err)
	}
	if led := p.effectCell(ctx, g, effect); led.Result != "" {
		return led
	}
	if found.Exit.Success() {
		return broken("it says that the command has run, and its effect is nowhere")
	}
	return refused("%s", fmt.Sprintf("status %d: %s", found.Exit.Code, found.Stderr))
}
