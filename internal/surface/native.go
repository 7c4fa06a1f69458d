package surface

import (
	"github.com/tongs-dev/tongs/capnweb"
)

// nativeMethods are the contract of package sandbox itself, with streams in place of readers and
// writers.
var nativeMethods = capnweb.Methods{
	"processes": capnweb.Getter(func(b *box) *capnweb.Target { return processesClass.New(processes{b.part()}) }),
	"files":     capnweb.Getter(func(b *box) *capnweb.Target { return filesClass.New(files{b.part()}) }),
	"terminals": capnweb.Getter(func(b *box) *capnweb.Target { return terminalsClass.New(terminals{b.part()}) }),
	"search":    capnweb.Getter(func(b *box) *capnweb.Target { return searchClass.New(search{b.part()}) }),
	"ports":     capnweb.Getter(func(b *box) *capnweb.Target { return portsClass.New(ports{b.part()}) }),
}

var processesClass = capnweb.NewClass[processes](together(processRoomMethods, waitMethods), capnweb.Concurrent())

var filesClass = capnweb.NewClass[files](together(fileRoomMethods, fileEditMethods, fileTreeMethods), capnweb.Concurrent())

// together is the union of tables.
func together(groups ...capnweb.Methods) capnweb.Methods {
	all := capnweb.Methods{}
	for _, group := range groups {
		for name, f := range group {
			all[name] = f
		}
	}
	return all
}
