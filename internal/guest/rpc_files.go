package guest

import (
	"context"
	"maps"
	"net"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// fileMethods are those of the main object that deal with whole trees and texts.
var fileMethods = capnweb.Methods{
	"readLines":  (*rpcMain).readLines,
	"edit":       (*rpcMain).edit,
	"applyPatch": (*rpcMain).applyPatch,
	"copy":       (*rpcMain).copy,
	"watch":      (*rpcMain).watch,
	"readTree":   (*rpcMain).readTree,
	"writeTree":  (*rpcMain).writeTree,
	"glob":       (*rpcMain).glob,
	"grep":       (*rpcMain).grep,
	"find":       (*rpcMain).find,
}

// with adds methods to others.
func with(more, methods capnweb.Methods) capnweb.Methods {
	maps.Copy(methods, more)
	return methods
}

func (m *rpcMain) readLines(ctx context.Context, path string, opts sandbox.LineOptions) (*sandbox.Lines, error) {
	return m.s.engine.readLines(ctx, path, opts)
}

func (m *rpcMain) edit(ctx context.Context, path string, old, new []byte, opts sandbox.EditOptions) (*sandbox.EditResult, error) {
	return m.s.engine.editFile(ctx, path, string(old), string(new), opts)
}

func (m *rpcMain) applyPatch(ctx context.Context, patch []byte, opts sandbox.PatchOptions) (*sandbox.PatchResult, error) {
	return m.s.engine.applyPatch(ctx, string(patch), opts)
}

func (m *rpcMain) copy(ctx context.Context, from, to string, opts sandbox.CopyOptions) (*sandbox.CopyResult, error) {
	return m.s.engine.copyTree(ctx, from, to, opts)
}

func (m *rpcMain) watch(path string, opts sandbox.WatchOptions) (*sandbox.TokenReply, error) {
	w, err := m.s.engine.newFileWatch(path, opts)
	if err != nil {
		return nil, err
	}
	m.s.wg.Go(w.run)
	return m.token(func(c *net.UnixConn) { m.s.serveFileWatch(c, w) }, w.close)
}

func (m *rpcMain) readTree(path string, opts sandbox.TreeOptions) (*sandbox.TokenReply, error) {
	t, err := m.s.engine.openTree(path, opts)
	if err != nil {
		return nil, err
	}
	return m.token(func(c *net.UnixConn) { m.s.serveTree(c, t) }, t.close)
}

func (m *rpcMain) writeTree(dir string, opts sandbox.WriteTreeOptions) (*sandbox.TokenReply, error) {
	t, err := m.s.engine.createTree(dir, opts)
	if err != nil {
		return nil, err
	}
	return m.token(func(c *net.UnixConn) { m.s.serveWriteTree(c, t) }, t.close)
}
