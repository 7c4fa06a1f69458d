package guest

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/tongs-dev/tongs/internal/plainjson/plainjsontest"
)

// FuzzPlainBoot compares what is read in the plain way with what encoding/json reads.
func FuzzPlainBoot(f *testing.F) {
	b := plainjsontest.Filled[Boot]()
	b.Guest.Limits = Limits{} // they are left to encoding/json
	whole, err := json.Marshal(b)
	if err != nil {
		f.Fatal(err)
	}
	if _, ok := plainBoot(whole); !ok {
		f.Fatalf("not understood: %s", whole)
	}
	f.Add(whole)
	f.Add([]byte(`{"guest":{"listenerFD":3,"limits":{"runs":1}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := plainBoot(data)
		if !ok {
			return
		}
		var want Boot
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("%s is understood, but %v", data, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", data, got, want)
		}
	})
}
