//go:build linux

package linux

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

// fewInotify is a limit that the sandboxes of one ordinary user share, below which it is worth telling.
const fewInotify = 512

// checkUser says what this process may do about user namespaces and ids, and what an ordinary user's
// sandboxes share.
func (d *Driver) checkUser() []driver.Finding {
	s := lookAround()
	all := []driver.Finding{d.checkRights(s)}
	if !d.rootless {
		return all
	}
	return append(all, checkIDs(), checkInotify())
}

// checkRights says who this process is, and what is known to keep it from making sandboxes. What can only
// be found out by trying, the sandbox made at the end shows.
func (d *Driver) checkRights(s surroundings) driver.Finding {
	const name = "rights"
	switch {
	case !d.rootless && !s.sysAdmin, !d.rootless && s.fewIDs:
		why, cure := s.explain(makingNamespaces, nil)
		return finding(name, driver.Failure, why, cure)
	case !d.rootless:
		return finding(name, driver.OK, "root: each sandbox has 65,536 user ids of its own", "")
	case s.noUsers, s.cloneOff, s.chroot, s.appArmor && s.unconfined():
		why, cure := s.explain(makingNamespaces, nil)
		return finding(name, driver.Failure, why, cure)
	}
	detail := "an ordinary user"
	if s.appArmor {
		detail += ", with the AppArmor profile " + s.label
	}
	return finding(name, driver.OK, detail, "")
}

// checkIDs says which ids an ordinary user's sandboxes have.
func checkIDs() driver.Finding {
	const name = "user ids"
	m, err := idmap.Find()
	if err != nil {
		why, cure := err.Error(), ""
		var e *sandbox.Error
		if errors.As(err, &e) {
			why, cure = e.Message, e.Hint
		}
		return finding(name, driver.Warning, "a sandbox has one user id only, on the host your own, so no root inside, no files of several owners, no apt-get install: "+why, cure)
	}
	detail := fmt.Sprintf("%d in each sandbox, on the host %s; all your sandboxes share them, and what the kernel counts by user", m.IDs(), spans(m.UIDs))
	if m.IDs() < idmap.Full {
		return finding(name, driver.Warning, detail+"; an image with higher ids than that can't be unpacked", "give your user a longer range: "+idmap.Grant())
	}
	return finding(name, driver.OK, detail, "")
}

// spans writes ids of the host as people do.
func spans(extents []idmap.Extent) string {
	var all []string
	for _, e := range extents {
		span := fmt.Sprint(e.Outside)
		if e.Size > 1 {
			span += fmt.Sprintf("-%d", e.Outside+e.Size-1)
		}
		all = append(all, span)
	}
	return strings.Join(all, ", ")
}

// checkInotify says how many watches the sandboxes of an ordinary user can have: the kernel counts them for
// the owner of their user namespaces, which is one and the same.
func checkInotify() driver.Finding {
	const name = "inotify"
	n, ok := sysctl("fs/inotify/max_user_instances")
	if !ok {
		return finding(name, driver.OK, "no limit that shows", "")
	}
	detail := fmt.Sprintf("%d instances, for you and all your sandboxes together (root's have as many each)", n)
	if n < fewInotify {
		return finding(name, driver.Warning, detail, "sudo sysctl -w fs.inotify.max_user_instances=1024")
	}
	return finding(name, driver.OK, detail, "")
}
