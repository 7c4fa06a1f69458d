package surface_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clients is the folder of what is shipped for JavaScript.
const clients = "../../clients/js"

// TestTypes has the TypeScript compiler read the declarations and the example that come with them; and mistakes, which
// it must find: declarations that allow everything would say nothing.
func TestTypes(t *testing.T) {
	t.Parallel()
	dir := scriptDir(t)
	for _, name := range []string{"tongs.d.ts", "example.ts"} {
		data, err := os.ReadFile(filepath.Join(clients, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ambient := `declare module "node:fs" { export function readFileSync(path: string, encoding: "utf8"): string }
declare module "node:http" { export type IncomingMessage = unknown; export type OutgoingHttpHeader = unknown; export type OutgoingHttpHeaders = unknown; export type ServerResponse = unknown }
declare const process: { argv: string[] };
`
	if err := os.WriteFile(filepath.Join(dir, "ambient.d.ts"), []byte(ambient), 0o644); err != nil {
		t.Fatal(err)
	}
	// Declarations are not looked into; as a module they are.
	declarations, err := os.ReadFile(filepath.Join(clients, "tongs.d.ts"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "declarations.ts"), declarations, 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, files ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "node", append([]string{"node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck",
			"--target", "es2022", "--module", "nodenext", "--moduleResolution", "bundler", "--module", "esnext",
			"--lib", "es2022,esnext.disposable,dom,dom.iterable,dom.asynciterable", "ambient.d.ts"}, files...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := check(t, "declarations.ts", "example.ts"); err != nil {
		t.Fatalf("the example: %v\n%s", err, out)
	}
	const preamble = `import type { RpcStub } from "capnweb";
import type { Endpoint } from "./tongs";
declare const tongs: RpcStub<Endpoint>;
const box = await tongs.get("x");
`
	mistakes := map[string]string{
		"method": "await box.execute('x');", "argument": "await box.exec(42);", "option": "await box.exec('x', { timeout: 'soon' });",
		"result": "const n: number = (await box.exec('x')).stdout; export { n };", "handle": "(await box.startProcess('x')).waitForPort('80');",
		"stream": "for await (const c of await box.files.readStream('x')) { c.notThere; }",
	}
	var files []string
	for name, line := range mistakes {
		file := "bad-" + name + ".ts"
		files = append(files, file)
		if err := os.WriteFile(filepath.Join(dir, file), []byte(preamble+line+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := check(t, files...)
	for name, line := range mistakes {
		if !strings.Contains(out, "bad-"+name+".ts(5,") {
			t.Errorf("%s passes\n%s", line, out)
		}
	}
}
