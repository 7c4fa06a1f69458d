// Package capnweb speaks Cap'n Web, the object-capability RPC of JavaScript's
// capnweb library, in Go.
//
// Two peers share a [Session]. Each gives the other a main object; calling
// methods passes more references to and fro. Methods are called on a [Stub], which is
// an object, or on a [Promise], which is the result of a call that need not have
// arrived: calls on it travel at once, so that a chain of calls costs one round trip.
//
//	s, err := httprpc.Dial(ctx, "wss://example.com/rpc", nil)
//	user := s.Main().Call("authenticate", token) // not awaited
//	defer user.Close()
//	name, err := capnweb.Call[string](ctx, user, "name") // one round trip for both
//
// What can be called is said explicitly: a [Target] is a table of functions.
//
//	main := capnweb.NewTarget(capnweb.Methods{
//		"square": func(ctx context.Context, i int) (int, error) { return i * i, nil },
//	})
//
// # Values
//
// Arguments and results are numbers, strings, booleans, nil, slices, maps with
// string keys and structs (json tags; an rpc tag overrides one), []byte,
// time.Time, *big.Int, [*Error], and references: [*Stub], [*Promise], [*Target],
// functions wrapped in [Func].
package capnweb
