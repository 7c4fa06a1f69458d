package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// completeCommand answers the scripts of completionCommand.
type completeCommand struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

// completeTimeout bounds how long a person who has pressed Tab waits for a service.
const completeTimeout = 2 * time.Second

// Run prints what the last word may become.
func (c *completeCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags, k *kong.Context) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	p := &completer{ctx: ctx, w: s.stdout, g: g, api: a, node: k.Model.Node, word: words[len(words)-1]}
	p.read(words[:len(words)-1])
	p.complete()
	return nil
}

// completer knows what has been typed.
type completer struct {
	ctx     context.Context
	w       io.Writer
	g       *Globals
	api     *APIFlags
	node    *kong.Node // the command so far
	args    []string   // its arguments
	pending *kong.Flag // one that wants the next word
	literal bool       // after --
	word    string     // what is to be completed
}

// read goes through the words before the last.
func (p *completer) read(words []string) {
	for _, word := range words {
		switch {
		case p.pending != nil:
			p.set(p.pending.Name, word)
			p.pending = nil
		case p.literal || word == "-" || !strings.HasPrefix(word, "-"):
			if child := p.child(word); child != nil && len(p.args) == 0 && !p.literal {
				p.node = child
				continue
			}
			p.args = append(p.args, word)
		case word == "--":
			p.literal = true
		default:
			name, value, given := strings.Cut(word, "=")
			flag := p.flag(name)
			switch {
			case flag == nil:
			case given:
				p.set(flag.Name, value)
			case !flag.IsBool() && !flag.IsCounter():
				p.pending = flag
			}
		}
	}
}

// set takes over the flags that say where the service is.
func (p *completer) set(flag, value string) {
	switch flag {
	case "home":
		p.g.Home = value
	case "config":
		p.g.Config = value
	case "api":
		p.api.API = value
	case "token-file":
		p.api.TokenFile = value
	}
}

func (p *completer) child(name string) *kong.Node {
	for _, child := range p.node.Children {
		if child.Name == name {
			return child
		}
		for _, alias := range child.Aliases {
			if alias == name {
				return child
			}
		}
	}
	return nil
}

func (p *completer) flag(text string) *kong.Flag {
	for _, group := range p.node.AllFlags(false) {
		for _, flag := range group {
			if text == "--"+flag.Name || flag.Short != 0 && text == "-"+string(flag.Short) {
				return flag
			}
		}
	}
	return nil
}

// offer prints a possibility.
func (p *completer) offer(text, about string) {
	if strings.HasPrefix(text, p.word) && !strings.ContainsAny(text, "\t\n\r") {
		fmt.Fprintf(p.w, "%s\t%s\n", text, strings.ReplaceAll(printable(about), "\n", " "))
	}
}

func (p *completer) files() { fmt.Fprintln(p.w, ":files") }

// complete prints what the word may become.
func (p *completer) complete() {
	switch {
	case p.pending != nil:
		p.value(p.pending)
	case strings.HasPrefix(p.word, "-") && !p.literal:
		for _, group := range p.node.AllFlags(true) {
			for _, flag := range group {
				p.offer("--"+flag.Name, flag.Help)
			}
		}
	case len(p.node.Children) > 0 && len(p.args) == 0:
		for _, child := range p.node.Children {
			if !child.Hidden {
				p.offer(child.Name, child.Help)
			}
		}
	default:
		p.argument()
	}
}

// value completes what a flag takes.
func (p *completer) value(flag *kong.Flag) {
	switch {
	case flag.Name == "attach" && len(p.args) > 0:
		p.processes(p.args[0])
	case flag.Name == "image":
		p.offer("host", "this machine's own toolchain")
		p.images()
	case flag.Name == "log-level":
		for _, level := range []string{"debug", "info", "warn", "error"} {
			p.offer(level, "")
		}
	case flag.Name == "log-format":
		p.offer("text", "")
		p.offer("json", "")
	case flag.PlaceHolder == "FILE" || flag.PlaceHolder == "DIR" && flag.Name == "home":
		p.files()
	}
}

// argument completes an argument of a command.
func (p *completer) argument() {
	i := len(p.args)
	switch strings.TrimPrefix(commandPath(p.node), "tongs ") {
	case "completion":
		for _, shell := range []string{"bash", "zsh", "fish"} {
			p.offer(shell, "")
		}
	case "image inspect", "image rm", "image pull":
		p.images()
	case "image import":
		p.files()
	case "sandbox inspect", "sandbox rm", "sandbox checkpoint", "sandbox restore":
		p.names("")
	case "sandbox exec", "sandbox shell", "sandbox ps", "sandbox ports", "sandbox token issue":
		if i == 0 {
			p.names("")
		}
	case "sandbox forward":
		if i == 0 {
			p.names("")
		} else {
			p.ports(p.args[0])
		}
	case "sandbox kill", "sandbox logs":
		if i == 0 {
			p.names("")
		} else {
			p.processes(p.args[0])
		}
	case "sandbox ls", "sandbox cat", "sandbox watch":
		if i > 0 && parsePlace(p.args[0]).box == "" {
			p.paths(p.args[0], "", p.word)
			return
		}
		p.places()
	case "sandbox cp":
		p.places()
		if parsePlace(p.word).box == "" {
			p.files()
		}
	}
}

// host connects, quietly.
func (p *completer) host() *remote.Host {
	host, err := p.api.connect(p.ctx, p.g)
	if err != nil {
		return nil
	}
	return host
}

// names offers the names of sandboxes, with something behind each.
func (p *completer) names(behind string) {
	host := p.host()
	if host == nil {
		return
	}
	defer host.Close()
	for info, err := range host.All(p.ctx, remote.ListOptions{Limit: 1000}) {
		if err != nil {
			return
		}
		p.offer(cmp.Or(info.Name, info.Session, info.ID)+behind, strings.TrimSpace(info.State+" "+shorten(info.Title, 40)))
	}
}

// places offers NAME: and NAME:PATH.
func (p *completer) places() {
	at := parsePlace(p.word)
	if at.box == "" {
		p.names(":")
		return
	}
	p.paths(at.box, at.box+":", at.path)
}

// paths offers what a directory of a sandbox holds.
func (p *completer) paths(name, before, typed string) {
	dir, start := path.Split(typed)
	p.box(name, func(box *sandbox.Client) {
		page, err := box.ListFiles(p.ctx, cmp.Or(dir, "."), sandbox.ListOptions{Limit: 2000, Hidden: strings.HasPrefix(start, ".")})
		if err != nil {
			return
		}
		for _, e := range page.Entries {
			text := before + dir + e.Name
			if e.Type == sandbox.TypeDirectory {
				text += "/"
			}
			p.offer(text, "")
		}
	})
}

func (p *completer) processes(name string) {
	p.box(name, func(box *sandbox.Client) {
		all, err := box.List(p.ctx)
		if err != nil {
			return
		}
		for _, one := range all {
			p.offer(one.ID, processState(one)+" "+shorten(strings.Join(one.Argv, " "), 40))
		}
	})
}

func (p *completer) ports(name string) {
	p.box(name, func(box *sandbox.Client) {
		all, err := box.ListPorts(p.ctx)
		if err != nil {
			return
		}
		for _, port := range all {
			if port.Listener == "" {
				p.offer(fmt.Sprint(port.Port), port.Process)
			}
		}
	})
}

// box does something with a sandbox that runs; nobody wants one started by a Tab.
func (p *completer) box(name string, do func(*sandbox.Client)) {
	host := p.host()
	if host == nil {
		return
	}
	defer host.Close()
	info, err := host.Inspect(p.ctx, name)
	if err != nil || info.Guest == nil {
		return
	}
	box, err := host.Sandbox(p.ctx, info.ID)
	if err != nil {
		return
	}
	defer box.Close()
	do(box)
}

// images offers the names of images, and ids of those that have none.
func (p *completer) images() {
	cfg, err := p.g.load()
	if err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join(cfg.Home, "images")); err != nil {
		return // nothing is made for who presses Tab
	}
	_ = withImages(p.g, func(_ *Config, store *image.Store) error { // whoever presses Tab sees no errors
		all, err := store.List()
		for _, im := range all {
			for _, n := range im.Names {
				p.offer(image.Familiar(n.Name), image.ShortID(im.ID)+", "+size(im.Bytes))
			}
			if len(im.Names) == 0 {
				p.offer(image.ShortID(im.ID), size(im.Bytes))
			}
		}
		return err
	})
}
