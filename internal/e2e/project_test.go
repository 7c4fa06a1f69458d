package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// userGit runs git in a directory of the user's.
func userGit(t testing.TB, dir, input string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// looks describes every file below a directory, with what would tell that it was touched. What a pull adds to the
// repository is left out when skip says so.
func looks(t testing.TB, dir string, skip ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if slices.Contains(skip, rel) {
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		all[rel] = fmt.Sprint(info.Mode(), st.Ino, st.Nlink, st.Uid, st.Size, st.Mtim, st.Ctim)
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			all[rel] += string(data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(t testing.TB, what string, before, after map[string]string) {
	t.Helper()
	for name, text := range before {
		if after[name] != text {
			t.Errorf("%s: %s is not as it was:\n%.300q\n%.300q", what, name, text, after[name])
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("%s: %s is new", what, name)
		}
	}
}

// TestProject: sessions start with a directory's files, an agent works on them, and the work comes back as a patch and as a
// branch, while the directory stays as it is.
func TestProject(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mine")
	for name, data := range map[string]string{
		"main.go": "package main\n\nfunc main() {\n}\n", "with space/ünï.txt": "one\n", "AGENTS.md": "Always say PINEAPPLE.\n", ".gitignore": "*.log\n", "old name.txt": strings.Repeat("a line\n", 20), "gone.txt": "x\n",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	userGit(t, dir, "", "init", "-q", "-b", "main")
	userGit(t, dir, "", "add", "-A")
	userGit(t, dir, "", "commit", "-qm", "first")
	put := func(name, data string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("gone.txt", "uncommitted\n")
	put("untracked.txt", "mine\n")
	put("build.log", "SECRET of the build\n")
	userGit(t, dir, "", "status")
	before := looks(t, dir)

	home := newHome(t)
	s := up(t, home, withArgs("--project", dir))
	if out := s.output(); !strings.Contains(out, "project: "+dir+" (branch main; ") {
		t.Errorf("up says nothing of the project: %s", out)
	}
	const model = "tongs/scripted"
	id := s.session()
	if got := s.bash(id, "git log --format=%s; git status --porcelain; cat untracked.txt; ls; git remote; ls *.log 2>&1 | grep -c cannot"); got !=
		"first\n M gone.txt\n?? untracked.txt\nmine\nAGENTS.md\ngone.txt\nmain.go\nold name.txt\nuntracked.txt\nwith space\n1\n" {
		t.Errorf("the sandbox has %q", got)
	}

	// The project's instructions reach the model, and clients see its files and its state.
	said := s.do(id, model, step{"text": "{{system}}"})
	if len(said) == 0 || !slices.ContainsFunc(said, func(p part) bool { return strings.Contains(p.Text, "Always say PINEAPPLE.") }) {
		t.Errorf("the project's AGENTS.md is not in the system prompt: %+v", said)
	}
	if files := s.project(id); strings.TrimSpace(files["untracked.txt"]) != "mine" || strings.TrimSpace(files["with space/ünï.txt"]) != "one" || files["build.log"] != "" {
		t.Errorf("clients see %q", files)
	}
	status, body := s.call("GET", "/vcs/status", nil, "X-Tongs-Session", id)
	if status != 200 || !strings.Contains(string(body), "gone.txt") || !strings.Contains(string(body), "untracked.txt") {
		t.Errorf("GET /vcs/status: %d %s", status, body)
	}

	// The agent works with every tool that writes.
	s.do(id, model, writeStep("new \"file\".txt", "new\n"),
		step{"tool": "read", "args": map[string]any{"filePath": "/home/user/project/main.go"}},
		step{"tool": "edit", "args": map[string]any{"filePath": "/home/user/project/main.go", "oldString": "func main() {\n}", "newString": "func main() {\n\tprintln(1)\n}"}},
		bashStep(`mv "old name.txt" "new name.txt"; rm gone.txt; printf '\0\1\2' >bin; chmod 755 main.go; echo more >>untracked.txt; echo log >x.log; git add main.go; git commit -qm "from the agent"`),
		step{"text": "done"})
	// What is undone is undone in the sandbox alone.
	s.do(id, model, bashStep("rm -rf *"), step{"text": "done"})
	if files := s.project(id); len(files) > 2 {
		t.Errorf("it is still there: %q", files)
	}
	users := s.users(id)
	s.post("/session/"+id+"/revert", map[string]any{"messageID": users[len(users)-1]})
	if got := s.project(id)["untracked.txt"]; strings.TrimSpace(got) != "mine\nmore" {
		t.Errorf("undo gives %q", got)
	}
	s.bash(id, "true") // what was undone is undone for good
	same(t, "while the agent worked", before, looks(t, dir))

	patch := tongs(t, home, "sandbox", "diff", id)
	if patch.code != 0 || !strings.Contains(patch.stdout, "rename from old name.txt") {
		t.Fatalf("diff: %+v", patch)
	}
	same(t, "diff", before, looks(t, dir))
	userGit(t, dir, patch.stdout, "apply", "--check", "-")
	pulled := tongs(t, home, "sandbox", "pull", "--json", id)
	var p struct {
		Branch         string
		Commits, Files int
	}
	if err := json.Unmarshal([]byte(pulled.stdout), &p); err != nil || p.Branch != "tongs/"+id || p.Commits != 2 || p.Files != 7 {
		t.Fatalf("pull: %+v", pulled)
	}
	// A branch, its objects and its log are new; of what was there, nothing changed but the folders that have them.
	added := []string{".git/objects", ".git/refs", ".git/logs", ".git"}
	same(t, "pull", without(before, added), looks(t, dir, added...))
	for _, name := range []string{".git/index", ".git/HEAD", ".git/config", ".git/refs/heads/main"} {
		if now := looks(t, dir); now[name] != before[name] {
			t.Errorf("pull: %s is not as it was", name)
		}
	}
	if got := userGit(t, dir, "", "log", "--format=%s|%an", "main.."+p.Branch); got != "Uncommitted work of sandbox "+id+"|OpenCode Agent\nfrom the agent|OpenCode Agent" {
		t.Errorf("the branch has %s", got)
	}
	userGit(t, dir, patch.stdout, "apply", "-")
	userGit(t, dir, "", "add", "-A")
	userGit(t, dir, "", "diff", "--cached", "--exit-code", p.Branch)

	// The next session has what is there now; the first keeps what it has, and what it was made from. So it is with a fork,
	// and after a restart of the service.
	put("untracked.txt", "once more\n")
	next := s.session()
	if got := s.bash(next, "cat untracked.txt bin | tr -d '\\0'"); !strings.Contains(got, "once more") {
		t.Errorf("the next session has %q", got)
	}
	status, body = s.call("POST", "/session/"+id+"/fork", map[string]any{})
	var fork struct{ ID string }
	if err := json.Unmarshal(body, &fork); err != nil || status != 200 {
		t.Fatalf("fork: %d %s", status, body)
	}
	if got := tongs(t, home, "sandbox", "diff", fork.ID); got.code != 0 || got.stdout != patch.stdout {
		t.Errorf("the fork's diff: %+v", got)
	}
	s.stop(syscall.SIGTERM)
	s = up(t, home, withArgs("--project", dir))
	if got := tongs(t, home, "sandbox", "diff", id); got.code != 0 || got.stdout != patch.stdout {
		t.Errorf("after a restart the diff is %+v", got)
	}

	// What nobody has goes. The one that the next session would have stays while the service runs.
	for _, session := range []string{id, next, fork.ID} {
		if status, body := s.call("DELETE", "/session/"+session, nil); status != 200 {
			t.Fatalf("DELETE: %d %s", status, body)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		left, err := os.ReadDir(filepath.Join(home, "projects"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) <= 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d layers are left", len(left))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func without(all map[string]string, dirs []string) map[string]string {
	kept := map[string]string{}
	for name, text := range all {
		if !slices.ContainsFunc(dirs, func(dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }) {
			kept[name] = text
		}
	}
	return kept
}

// TestProjectMistakes: what cannot be a project ends the start, with what to do.
func TestProjectMistakes(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	home := newHome(t)
	for name, dir := range map[string]string{"no such file": filepath.Join(t.TempDir(), "none"), "/ is no project": "/", "Tongs' own": home} {
		got := tongs(t, home, "up", "--scripted", "--listen", "127.0.0.1:0", "--project", dir)
		if got.code != 1 || !strings.Contains(got.stderr, name) {
			t.Errorf("%s: %+v", dir, got)
		}
	}
}
