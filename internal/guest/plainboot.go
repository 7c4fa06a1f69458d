package guest

import (
	"math"

	"github.com/tongs-dev/tongs/internal/plainjson"
)

// plainBoot reads a boot document of the kind that drivers write. What it doesn't understand it leaves to
// encoding/json.
func plainBoot(data []byte) (b Boot, ok bool) {
	r := plainjson.New(data)
	r.Object(func(key string) {
		switch key {
		case "setup":
			b.Setup = append(b.Setup[:0], r.Raw()...)
		case "guest":
			b.Guest.plain(r)
		default:
			r.Fail()
		}
	})
	return b, r.OK()
}

func (c *Config) plain(r *plainjson.Reader) {
	r.Object(func(key string) {
		switch key {
		case "listenerFD":
			c.ListenerFD = int(r.Int())
		case "listenPath":
			c.ListenPath = r.Text()
		case "user":
			c.User.plain(r)
		case "project":
			c.Project = r.Text()
		case "env":
			c.Env = r.Texts()
		case "outputDir":
			c.OutputDir = r.Text()
		case "ripgrep":
			c.Ripgrep = r.Text()
		case "cgroup":
			c.Cgroup.plain(r)
		case "leaseSeconds":
			c.LeaseSeconds = r.Int()
		case "logFD":
			c.LogFD = int(r.Int())
		case "incarnation":
			c.Incarnation = r.Text()
		default: // limits, too, which drivers leave at their defaults
			r.Fail()
		}
	})
}

func (u *User) plain(r *plainjson.Reader) {
	id := func() uint32 {
		n := r.Int()
		if n < 0 || n > math.MaxUint32 {
			r.Fail()
		}
		return uint32(n)
	}
	r.Object(func(key string) {
		switch key {
		case "name":
			u.Name = r.Text()
		case "home":
			u.Home = r.Text()
		case "shell":
			u.Shell = r.Text()
		case "uid":
			u.UID = id()
		case "gid":
			u.GID = id()
		case "root":
			u.Root = r.Bool()
		case "alsoRoot":
			u.AlsoRoot = r.Bool()
		case "groups":
			u.Groups = []uint32{}
			r.Array(func() { u.Groups = append(u.Groups, id()) })
		default:
			r.Fail()
		}
	})
}

func (c *Cgroup) plain(r *plainjson.Reader) {
	r.Object(func(key string) {
		switch key {
		case "version":
			c.Version = int(r.Int())
		case "tasksFDs":
			c.TasksFDs = r.Ints()
		case "dirFD":
			c.DirFD = int(r.Int())
		case "tasks":
			c.Tasks = r.Int()
		case "pidsFD":
			c.PidsFD = int(r.Int())
		case "oomFD":
			c.OOMFD = int(r.Int())
		case "meminfoFD":
			c.MeminfoFD = int(r.Int())
		case "memory":
			c.Memory = r.Int()
		case "usageFD":
			c.UsageFD = int(r.Int())
		case "statFD":
			c.StatFD = int(r.Int())
		default:
			r.Fail()
		}
	})
}
