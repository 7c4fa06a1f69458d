package capnweb

// Resolver settles a promise made by [NewPromise].
type Resolver struct{ d *deferred }

// NewPromise makes a promise that is settled here, later. It can be returned or
// passed at once. It should be settled in the end: those who wait for it wait
// until then.
func NewPromise() (*Promise, *Resolver) {
	d := newDeferred()
	return newPromise(d), &Resolver{d: d}
}

// Resolve settles the promise with a value, as if a handler had returned it:
// references in it are given away. A promise is settled once; later calls do nothing.
// An error says that the value cannot travel; the promise is then rejected with it.
func (r *Resolver) Resolve(v any) error {
	p, err := buildResult(v)
	if err != nil {
		r.d.reject(err)
		return err
	}
	r.d.resolve(hookOf(p))
	return nil
}

// Reject settles the promise with an error.
func (r *Resolver) Reject(err error) { r.d.reject(err) }
