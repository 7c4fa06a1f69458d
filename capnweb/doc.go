// Package capnweb speaks Cap'n Web, the object-capability RPC of JavaScript's
// capnweb library, in Go: over WebSockets and HTTP (see package httprpc), over
// byte streams such as unix sockets, and within a process.
//
// # Calling
//
// Two peers share a [Session]. Each gives the other a main object; calls on it pass
// more references to and fro. Methods are called on a [Stub], which stands for an object or
// function elsewhere, or on a [Promise], which stands for the result of a call. A
// promise need not have arrived for that: calls on it travel at once, so that a chain
// of calls costs one round trip.
//
//	s, err := httprpc.Dial(ctx, "wss://example.com/rpc", nil)
//	if err != nil { … }
//	defer s.Close(nil)
//	user := s.Main().Call("authenticate", token) // begun, not awaited
//	defer user.Close()
//	name, err := capnweb.Call[string](ctx, user, "name") // one round trip for both
//
// [Call] waits for one result, [Await] for one that was begun. [Map] sends a
// function to where a list is. [Bind] gives the methods of an object Go signatures, for
// APIs whose shape is known:
//
//	type User struct {
//		Name  func(ctx context.Context) (string, error) `rpc:"name,get"` // a property
//		Greet func(ctx context.Context, greeting string) (string, error)
//	}
//	u, err := capnweb.Bind[User](user)
//	text, err := u.Greet(ctx, "Hello")
//
// Sessions come from httprpc.Dial and httprpc.Handler, from [NewSession] over the two ends
// of a [Pipe] or of any byte stream ([NewStreamTransport]), and, one after the other as they
// break, from a [Redialer].
//
// # Exporting
//
// What a peer can call is said explicitly; nothing of a Go value is reachable
// otherwise. A [Target] is a table of functions, a [Class] one for many values of a type, and
// [Func] exports a single function, for callbacks.
//
//	main := capnweb.NewTarget(capnweb.Methods{
//		"square": func(ctx context.Context, i int) (int, error) { return i * i, nil },
//	})
//	http.Handle("/rpc", &httprpc.Handler{Main: func(*http.Request) (any, error) { return main, nil }})
//
// Calls on one target run one at a time, in the order in which they were made, unless
// the target is [Concurrent] or a handler calls [Unblock] or waits for another call. A
// handler that panics rejects its call and nothing else.
//
// # Values
//
//	Go                                    JavaScript
//	nil, nil pointer                      null
//	no result, Undefined                  undefined
//	bool, string                          boolean, string
//	numbers (integers up to ±2^53-1)      number; NaN and infinities too
//	*big.Int                              bigint
//	[]byte                                Uint8Array
//	TypedArray                            the other buffers
//	time.Time, InvalidDate                Date
//	slices, arrays                        Array
//	structs, maps, Object                 object
//	error, *Error                         Error
//	*Target, *Stub, Exporter              stub
//	*Promise                              promise
//	*ReadableStream, *WritableStream      the streams
//	*Blob, Headers, *Request, *Response, URL   the same of fetch
//
// Structs use json tags; an rpc tag overrides one. Nil slices and maps are
// empty arrays and objects. Types with MarshalJSON or MarshalText use them. An any is decoded
// into nil, bool, float64, string, []any, map[string]any and the types above; decode into
// [Value] to tell undefined from null, or to keep the order of an object's members. Decoding a
// number into an integer that cannot hold it is an error, and so is null where
// a parameter is not a pointer, slice, map or any.
//
// # Streams
//
// A stream of bytes is an io.Reader or an io.Writer on both sides:
//
//	n, err := capnweb.Call[int](ctx, store, "put", capnweb.NewReader(file)) // read there
//	r, err := capnweb.Call[io.ReadCloser](ctx, store, "get")                // read here
//	defer r.Close()
//
// A handler takes an io.Reader or io.WriteCloser as a parameter. [Chunks], [NewSource] and [NewSink] are
// for streams of other values. A slow reader slows the writer down, also through relays;
// nothing but a window of the stream is held in memory.
//
// # Ownership
//
// Who receives a result owns the references in it and closes them. Parameters are
// lent for the call; to keep one, Dup it (Keep, for streams). A result gives its references
// away; to keep one, return its Dup. Nothing is cancelled by closing a promise: the call
// runs to its end, and its result is dropped. OWNERSHIP.md, beside this package, says it all.
//
// # Errors
//
// A peer's error arrives as an [*Error] with its name, message, own properties
// and cause. Any other error says that the call could not be made or answered:
// one that matches [ErrDisconnected] means that the session is over. An error that a handler
// returns is sent with its text; to say something else, implement
// [WireError] or use [WithErrorHook].
//
// # Bounds
//
// Everything that a peer can make a session hold is bounded by [Limits]. Reading never waits for
// handlers or for writing. A caller waits when too much of its own is queued; a peer
// that asks for more than it reads loses the session.
//
// A session over a socket that gives its peer nothing to call is read by its own callers while they call one at a time.
// Between two calls nobody reads it then, for up to 8 ms: so much later it is noticed that the peer has
// gone, unless somebody calls [Session.Done].
package capnweb
