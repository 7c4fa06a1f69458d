package surface

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

// TestEverythingIsDeclared holds that the shipped declarations have every method, and no others.
func TestEverythingIsDeclared(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../clients/js/tongs.d.ts")
	if err != nil {
		t.Fatal(err)
	}
	// What only says that it is not supported need not be declared.
	undeclared := map[string]bool{"setBaseUrl": true, "setTransport": true, "setLabels": true, "getContainerPlacementId": true, "checkChanges": true, "desktop": true}
	for name, methods := range map[string]capnweb.Methods{
		"Sandbox": together(commandMethods, processMethods, fileMethods, previewMethods, fetchMethods, terminalMethods, nativeMethods,
			sessionMethods, codeMethods, settingMethods, unsupportedMethods),
		"Processes": together(processRoomMethods, waitMethods),
		"Files":     together(fileRoomMethods, fileEditMethods, fileTreeMethods),
		"Ports":     portMethods, "Terminals": terminalRoomMethods, "Search": searchMethods,
	} {
		declared := members(t, string(text), name)
		if name == "Sandbox" {
			for member := range members(t, string(text), "Commands") {
				declared[member] = true
			}
		}
		for method := range methods {
			if !declared[method] && !undeclared[method] {
				t.Errorf("%s.%s is not declared", name, method)
			}
			delete(declared, method)
		}
		for method := range declared {
			t.Errorf("%s.%s is declared and is not there", name, method)
		}
	}
}

var member = regexp.MustCompile(`(?m)^  (?:readonly )?(\w+)[(:]`)

// members are the names in an interface of the declarations.
func members(t *testing.T, text, name string) map[string]bool {
	t.Helper()
	_, body, ok := strings.Cut(text, "export interface "+name+" ")
	if !ok {
		t.Fatalf("no interface %s", name)
	}
	body, _, _ = strings.Cut(body, "\n}\n")
	names := map[string]bool{}
	for _, m := range member.FindAllStringSubmatch(body, -1) {
		names[m[1]] = true
	}
	return names
}
