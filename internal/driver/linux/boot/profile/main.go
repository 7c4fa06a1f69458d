// Command profile turns Docker's default profile of system calls, the data of github.com/moby/profiles/seccomp,
// into tables of package boot, one file for each architecture, in the parent directory. It is a module of its own, so that
// neither that module nor what it needs belongs to Tongs or to its guest.
//
// It runs by `go generate ./internal/driver/linux/boot`. With -check it writes nothing and fails if a file is not
// what it would write.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	profiles = "github.com/moby/profiles/seccomp"
	numbers  = "golang.org/x/sys"
)

// rule is one of the profile's rules, as its JSON has it.
type rule struct {
	Names    []string  `json:"names"`
	Action   string    `json:"action"`
	ErrnoRet *uint     `json:"errnoRet"`
	Args     []compare `json:"args"`
	Includes condition `json:"includes"`
	Excludes condition `json:"excludes"`
}

type compare struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       string `json:"op"`
}

type condition struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// capabilities are those that a rule can ask for and a sandbox's commands can have: none. What the sandbox's root may have
// (package boot) opens no rule.
var capabilities []string

// applies says whether a rule holds on an architecture. The kernels that Tongs runs on are newer than any that a rule asks for.
func (r rule) applies(arch string) bool {
	has := func(c string) bool { return slices.Contains(capabilities, c) }
	if slices.Contains(r.Excludes.Arches, arch) || slices.ContainsFunc(r.Excludes.Caps, has) || r.Excludes.MinKernel != "" {
		return false
	}
	return (len(r.Includes.Arches) == 0 || slices.Contains(r.Includes.Arches, arch)) &&
		!slices.ContainsFunc(r.Includes.Caps, func(c string) bool { return !has(c) })
}

func main() {
	log.SetFlags(0)
	check := flag.Bool("check", false, "write nothing, fail if a file differs")
	flag.Parse()
	module := moduleDir(profiles)
	data, err := os.ReadFile(filepath.Join(module.Dir, "default.json"))
	if err != nil {
		log.Fatal(err)
	}
	var profile struct {
		DefaultAction   string `json:"defaultAction"`
		DefaultErrnoRet uint   `json:"defaultErrnoRet"`
		Syscalls        []rule `json:"syscalls"`
	}
	if err := json.Unmarshal(data, &profile); err != nil {
		log.Fatal(err)
	}
	if profile.DefaultAction != "SCMP_ACT_ERRNO" || profile.DefaultErrnoRet != 1 {
		log.Fatalf("the profile's default is %s %d; this program knows EPERM only", profile.DefaultAction, profile.DefaultErrnoRet)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		text, err := table(arch, module.Version, profile.Syscalls)
		if err != nil {
			log.Fatal(err)
		}
		file := filepath.Join("..", "profile_linux_"+arch+".go")
		if *check {
			have, err := os.ReadFile(file)
			if err != nil {
				log.Fatal(err)
			}
			if !bytes.Equal(have, text) {
				log.Fatalf("%s is not what go generate ./internal/driver/linux/boot writes", file)
			}
			continue
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

type moduleInfo struct{ Dir, Version string }

// moduleDir gives the directory in which the go command keeps a module that this one requires.
func moduleDir(path string) (m moduleInfo) {
	out, err := exec.Command("go", "mod", "download", "-json", path).Output()
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil || m.Dir == "" {
		log.Fatalf("find module %s: %v", path, err)
	}
	return m
}

var numberLine = regexp.MustCompile(`(?m)^\tSYS_([A-Z0-9_]+)\s*= (\d+)`)

// callNumbers reads the numbers of an architecture's system calls.
func callNumbers(arch string) (map[string]uint32, error) {
	data, err := os.ReadFile(filepath.Join(moduleDir(numbers).Dir, "unix", "zsysnum_linux_"+arch+".go"))
	if err != nil {
		return nil, err
	}
	all := make(map[string]uint32)
	for _, m := range numberLine.FindAllStringSubmatch(string(data), -1) {
		n, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			return nil, err
		}
		all[strings.ToLower(m[1])] = uint32(n)
	}
	if len(all) < 300 {
		return nil, fmt.Errorf("only %d system calls of %s are known", len(all), arch)
	}
	return all, nil
}

var tests = map[string]string{"SCMP_CMP_EQ": "isEqual", "SCMP_CMP_LT": "isLess", "SCMP_CMP_MASKED_EQ": "isMasked"}

// table writes the file of one architecture.
func table(arch, version string, rules []rule) ([]byte, error) {
	number, err := callNumbers(arch)
	if err != nil {
		return nil, err
	}
	allowed := make(map[string]bool)
	answers := make(map[string]uint)
	var conditions []string
	missing := make(map[string]bool)
	for _, r := range rules {
		if !r.applies(arch) {
			continue
		}
		for _, name := range r.Names {
			n, ok := number[name]
			switch {
			case !ok:
				missing[name] = true // another architecture's, or another size of word's
			case r.Action == "SCMP_ACT_ERRNO" && r.ErrnoRet != nil && len(r.Args) == 0:
				answers[name] = *r.ErrnoRet
			case r.Action != "SCMP_ACT_ALLOW" || len(r.Args) > 1:
				return nil, fmt.Errorf("the rule of %s is of a kind that this program doesn't know", name)
			case len(r.Args) == 0:
				allowed[name] = true
			default:
				a := r.Args[0]
				if tests[a.Op] == "" || a.Value>>32 != 0 || a.ValueTwo>>32 != 0 {
					return nil, fmt.Errorf("the comparison %+v of %s is of a kind that this program doesn't know", a, name)
				}
				conditions = append(conditions, fmt.Sprintf("{%d, %d, %s, %#x, %#x}, // %s", n, a.Index, tests[a.Op], a.Value, a.ValueTwo, name))
			}
		}
	}
	names := make([]string, 0, len(number))
	for name := range number {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(number[a]) - int(number[b]) })

	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by internal/driver/linux/boot/profile from %s %s. DO NOT EDIT.\n\npackage boot\n\n", profiles, version)
	fmt.Fprint(&b, "// profileAllowed are the ranges of calls that Docker's profile allows, whatever their arguments are.\nvar profileAllowed = []span{\n")
	var refused []string
	last := uint32(0)
	for i := 0; i < len(names); {
		if !allowed[names[i]] {
			if _, conditional := answers[names[i]]; !conditional {
				refused = append(refused, fmt.Sprintf("%s (%d)", names[i], number[names[i]]))
			}
			i++
			continue
		}
		j := i
		for j+1 < len(names) && allowed[names[j+1]] && number[names[j+1]] == number[names[j]]+1 {
			j++
		}
		last = number[names[j]]
		fmt.Fprintf(&b, "{%d, %d}, // %s\n", number[names[i]], last, strings.Join(names[i:j+1], " "))
		i = j + 1
	}
	fmt.Fprint(&b, "}\n\n// profileConditions allow a call if one of the conditions about one of its arguments holds.\nvar profileConditions = []condition{\n")
	fmt.Fprintln(&b, strings.Join(conditions, "\n"))
	fmt.Fprint(&b, "}\n\n// profileAnswers are the calls with an answer of their own.\nvar profileAnswers = map[uint32]uint32{\n")
	for _, name := range names {
		if e, ok := answers[name]; ok {
			fmt.Fprintf(&b, "%d: %d, // %s\n", number[name], e, name)
		}
	}
	fmt.Fprintf(&b, "}\n\n// profileLast is the last call that the profile allows: it doesn't know of later ones.\nconst profileLast = %d\n", last)
	fmt.Fprintf(&b, "\n// Not allowed, or only with certain arguments:\n")
	for line := range wrap(refused, 110) {
		fmt.Fprintf(&b, "// %s\n", line)
	}
	return format.Source(b.Bytes())
}

// wrap gives lines of words with commas between.
func wrap(words []string, width int) func(func(string) bool) {
	return func(yield func(string) bool) {
		line := ""
		for i, w := range words {
			if i+1 < len(words) {
				w += ","
			}
			if line != "" && len(line)+1+len(w) > width {
				if !yield(line) {
					return
				}
				line = ""
			}
			line = strings.TrimSpace(line + " " + w)
		}
		yield(line)
	}
}
