package boot

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/tongs-dev/tongs/internal/plainjson/plainjsontest"
)

// FuzzPlainPlan compares what is read in the plain way with what encoding/json reads.
func FuzzPlainPlan(f *testing.F) {
	p := plainjsontest.Filled[Plan]()
	p.Inside, p.Rootless = nil, nil
	plan, err := json.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	c := plainjsontest.Filled[Config]()
	c.Group = nil // as with Rootless, it is left to encoding/json
	config, err := json.Marshal(c)
	if err != nil {
		f.Fatal(err)
	}
	if _, ok := plainPlan(plan); !ok {
		f.Fatalf("not understood: %s", plan)
	}
	if _, ok := plainConfig(config); !ok {
		f.Fatalf("not understood: %s", config)
	}
	f.Add(plan)
	f.Add(config)
	f.Add([]byte(`{"hostname":"h","rootless":{"binds":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, ok := plainPlan(data); ok {
			compare(t, data, got)
		}
		if got, ok := plainConfig(data); ok {
			compare(t, data, got)
		}
	})
}

func compare[T any](t *testing.T, data []byte, got T) {
	t.Helper()
	var want T
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("%s is understood, but %v", data, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, want %+v", data, got, want)
	}
}
