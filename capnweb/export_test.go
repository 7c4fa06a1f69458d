package capnweb

// ParseJSON parses one JSON text, for tests.
func ParseJSON(b []byte) (any, error) {
	var d document
	if err := d.parse(b, 10_000); err != nil {
		return nil, err
	}
	return plain(d.literalValue(0)), nil
}

// Reencode evaluates an expression without references and writes it again.
func Reencode(b []byte) ([]byte, error) {
	var d document
	if err := d.parse(b, 1000); err != nil {
		return nil, err
	}
	p, err := evaluate(&d, 0, &mapScope{}, &defaultLimits, nil, 0)
	if err != nil {
		return nil, err
	}
	defer p.close()
	e := &encoder{s: &Session{limits: defaultLimits, opts: options{newer: true, errorHook: func(e *Error) *Error { return e }}}}
	if err := e.value(p.v, 0); err != nil {
		return nil, err
	}
	return e.b, nil
}

// AppendBase64 and DecodeStrict are the base64 codec, for tests.
var (
	AppendBase64 = appendBase64
	DecodeStrict = decodeStrict
)

// NewFlow makes a flow controller with a clock in milliseconds.
func NewFlow(now func() float64) *Flow { return &Flow{newFlow(now)} }

// Flow is the flow controller, for tests.
type Flow struct{ f *flow }

// Token is what it remembers of a message.
type Token = flowToken

func (f *Flow) Send(size int) (Token, bool) { return f.f.onSend(size) }
func (f *Flow) Ack(t Token) bool            { return f.f.onAck(t) }
func (f *Flow) Fail(t Token)                { f.f.onError(t) }
func (f *Flow) Window() float64             { return f.f.window }
func (f *Flow) InFlight() float64           { return f.f.inFlight }
func (f *Flow) Startup() bool               { return f.f.startup }

// NobodyReads reports whether the session is left to its next caller.
func NobodyReads(s *Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turns.who == nobodyReads
}

// RestTime is how long a session is left at least.
const RestTime = restTime
