package capnweb

import (
	"math"
	"time"
)

// The flow control of streams is the sender's alone: nothing of it is on the
// wire. It keeps a window over the bytes that were sent and not acknowledged, sized
// by the bandwidth-delay product it observes. The constants and the arithmetic are
// those of the reference, so that both behave alike on the same link.
const (
	flowInitial       = 256 << 10
	flowMin           = 64 << 10
	flowMax           = 1 << 30
	flowStartupGrowth = 2
	flowSteadyGrowth  = 1.25
	flowDecay         = 0.90
	flowStartupRounds = 3
)

// flow is one stream's controller. Times are in milliseconds.
type flow struct {
	now      func() float64
	window   float64
	inFlight float64
	startup  bool

	delivered         float64
	deliveredTime     float64
	firstAckTime      float64
	firstAckDelivered float64
	minRTT            float64

	flatRounds int
	lastWindow float64
	roundStart float64
}

// flowToken is what the controller remembers of one message.
type flowToken struct {
	sent            float64
	size            float64
	deliveredBefore float64
	deliveredTime   float64
	window          float64
	full            bool
}

func newFlow(now func() float64) *flow {
	return &flow{now: now, window: flowInitial, startup: true, minRTT: math.Inf(1)}
}

var processStart = time.Now()

func monotonicMillis() float64 { return float64(time.Since(processStart)) / float64(time.Millisecond) }

// onSend counts a message; full says that the sender must wait now.
func (f *flow) onSend(size int) (t flowToken, full bool) {
	f.inFlight += float64(size)
	t = flowToken{
		sent:            f.now(),
		size:            float64(size),
		deliveredBefore: f.delivered,
		deliveredTime:   f.deliveredTime,
		window:          f.window,
		full:            f.inFlight >= f.window,
	}
	return t, t.full
}

// onError counts a message that failed.
func (f *flow) onError(t flowToken) { f.inFlight -= t.size }

// onAck counts a message that was acknowledged, and reports whether there is
// room for the next.
func (f *flow) onAck(t flowToken) bool {
	now := f.now()
	f.delivered += t.size
	f.deliveredTime = now
	f.inFlight -= t.size
	f.minRTT = math.Min(f.minRTT, now-t.sent)
	if f.firstAckTime == 0 {
		f.firstAckTime = now
		f.firstAckDelivered = f.delivered
		return f.inFlight < f.window
	}
	since, before := t.deliveredTime, t.deliveredBefore
	if since == 0 { // sent before anything was acknowledged
		since, before = f.firstAckTime, f.firstAckDelivered
	}
	growth := flowSteadyGrowth
	if f.startup {
		growth = flowStartupGrowth
	}
	bandwidth := (f.delivered - before) / (now - since)
	window := math.Min(bandwidth*f.minRTT*growth, t.window*growth)
	if math.IsNaN(window) { // no time has passed on this clock
		window = f.window
	}
	if t.full {
		window = math.Max(window, t.window*flowDecay)
	} else {
		window = math.Max(window, f.window)
	}
	f.window = math.Max(math.Min(window, flowMax), flowMin)
	if f.startup && t.sent >= f.roundStart {
		if f.window > f.lastWindow*flowSteadyGrowth {
			f.flatRounds = 0
		} else if f.flatRounds++; f.flatRounds >= flowStartupRounds {
			f.startup = false
		}
		f.roundStart = now
		f.lastWindow = f.window
	}
	return f.inFlight < f.window
}
