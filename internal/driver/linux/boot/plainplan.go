package boot

import "github.com/tongs-dev/tongs/internal/plainjson"

// plainConfig reads a Config as drivers write it. What it doesn't understand it leaves to encoding/json.
func plainConfig(data []byte) (c Config, ok bool) {
	r := plainjson.New(data)
	r.Object(func(key string) {
		switch key {
		case "channelFD":
			c.ChannelFD = int(r.Int())
		case "rootAtCwd":
			c.RootAtCwd = r.Bool()
		case "meminfo":
			c.Meminfo = r.Bool()
		case "clone3":
			c.Clone3 = r.Bool()
		default:
			r.Fail()
		}
	})
	return c, r.OK()
}

// plainPlan reads a Plan for a place that a driver with rights has prepared; others have more to do and leave more to
// encoding/json.
func plainPlan(data []byte) (p Plan, ok bool) {
	r := plainjson.New(data)
	r.Object(func(key string) {
		switch key {
		case "hostname":
			p.Hostname = r.Text()
		case "tmpBytes":
			p.TmpBytes = r.Int()
		case "shmBytes":
			p.ShmBytes = r.Int()
		case "uid":
			p.UID = int(r.Int())
		case "gid":
			p.GID = int(r.Int())
		case "mounts":
			p.Mounts = r.Texts()
		case "root":
			p.Root = r.Bool()
		case "egress":
			p.Egress = r.Bool()
		case "late":
			p.Late = r.Ints()
		default:
			r.Fail()
		}
	})
	return p, r.OK()
}
