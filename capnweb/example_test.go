package capnweb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/tongs-dev/tongs/capnweb"
)

// session connects a client to a server that exports main.
func session(main any) (client *capnweb.Session, done func()) {
	a, b := capnweb.Pipe()
	c, s := capnweb.NewSession(a, nil), capnweb.NewSession(b, main)
	return c, func() {
		_ = c.Close(nil)
		<-s.Done()
	}
}

func ExampleCall() {
	s, done := session(capnweb.NewTarget(capnweb.Methods{
		"square": func(i int) int { return i * i },
	}))
	defer done()

	n, err := capnweb.Call[int](context.Background(), s.Main(), "square", 12)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n)
	// Output: 144
}

type account struct{ name string }

func (a *account) greet(greeting string) string { return greeting + ", " + a.name }

var accounts = capnweb.NewClass[*account](capnweb.Methods{
	"greet": (*account).greet,
	"name":  capnweb.Getter(func(a *account) string { return a.name }),
})

// Calls on a promise travel with the call that makes it.
func ExamplePromise_pipelining() {
	s, done := session(capnweb.NewTarget(capnweb.Methods{
		"login": func(name string) *capnweb.Target { return accounts.New(&account{name}) },
	}))
	defer done()
	ctx := context.Background()

	user := s.Main().Call("login", "Ada") // not awaited
	defer user.Close()
	text, err := capnweb.Call[string](ctx, user, "greet", "Hello")
	if err != nil {
		log.Fatal(err)
	}
	name, err := capnweb.Await[string](ctx, user.Get("name"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)
	fmt.Println(name)
	// Output:
	// Hello, Ada
	// Ada
}

func ExampleFunc_callback() {
	s, done := session(capnweb.NewTarget(capnweb.Methods{
		"countdown": func(ctx context.Context, from int, tell *capnweb.Stub) error {
			for i := from; i > 0; i-- {
				if _, err := capnweb.Call[any](ctx, tell, "", i); err != nil {
					return err
				}
			}
			return nil
		},
	}))
	defer done()

	_, err := capnweb.Call[any](context.Background(), s.Main(), "countdown", 3,
		capnweb.Func(func(i int) { fmt.Println(i) }))
	fmt.Println(err)
	// Output:
	// 3
	// 2
	// 1
	// <nil>
}

func ExampleNewReader() {
	s, done := session(capnweb.NewTarget(capnweb.Methods{
		"upper": func(r io.Reader) (string, error) {
			b, err := io.ReadAll(r)
			return strings.ToUpper(string(b)), err
		},
	}))
	defer done()

	text, err := capnweb.Call[string](context.Background(), s.Main(), "upper", capnweb.NewReader(strings.NewReader("a stream")))
	fmt.Println(text, err)
	// Output: A STREAM <nil>
}

// An error keeps its class and its own properties.
func ExampleError() {
	s, done := session(capnweb.NewTarget(capnweb.Methods{
		"open": func(path string) error {
			return &capnweb.Error{
				Name: "RangeError", Message: "no such file: " + path,
				Props: capnweb.Object{{Key: "code", Value: "ENOENT"}},
			}
		},
	}))
	defer done()

	_, err := capnweb.Call[any](context.Background(), s.Main(), "open", "/x")
	var e *capnweb.Error
	if errors.As(err, &e) {
		fmt.Println(e.Name, e.Code(), "-", e.Message)
	}
	fmt.Println("the line is fine:", !errors.Is(err, capnweb.ErrDisconnected))
	// Output:
	// RangeError ENOENT - no such file: /x
	// the line is fine: true
}

func ExampleMap() {
	s, done := session(capnweb.NewTarget(capnweb.Methods{
		"list":   func() []int { return []int{1, 2, 3} },
		"square": func(i int) int { return i * i },
	}))
	defer done()

	list := s.Main().Call("list")
	defer list.Close()
	squares, err := capnweb.Await[[]int](context.Background(), capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
		return m.Use(s.Main()).Call("square", x)
	}))
	fmt.Println(squares, err)
	// Output: [1 4 9] <nil>
}

// A struct of functions gives the methods of an object their types.
func ExampleBind() {
	s, done := session(capnweb.NewTarget(capnweb.Methods{
		"login": func(name string) *capnweb.Target { return accounts.New(&account{name}) },
	}))
	defer done()
	ctx := context.Background()

	type service struct {
		Login func(name string) *capnweb.Promise
	}
	type user struct {
		Greet func(ctx context.Context, greeting string) (string, error)
		Name  func(ctx context.Context) (string, error) `rpc:"name,get"`
	}
	api, err := capnweb.Bind[service](s.Main())
	if err != nil {
		log.Fatal(err)
	}
	promise := api.Login("Ada") // not awaited
	defer promise.Close()
	ada, err := capnweb.Bind[user](promise)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ada.Greet(ctx, "Hello"))
	fmt.Println(ada.Name(ctx))
	// Output:
	// Hello, Ada <nil>
	// Ada <nil>
}
