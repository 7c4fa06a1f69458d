package fleet

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// member is one sandbox and the connection to it.
type member struct {
	fleet *Fleet
	key   key
	id    string
	from  string // the sandbox with whose files it starts; "": an image's

	prepare Preparation // nil: the recipe is complete

	mu      sync.Mutex
	project string // whose files it has
	made    bool   // the driver has it
	retired bool
	client  *sandbox.Client
	attempt *attempt
}

// attempt is one effort to reach a sandbox, shared by all who wait for it.
type attempt struct {
	done   chan struct{}
	client *sandbox.Client
	err    error
	rest   bool // none: the sandbox is kept at rest, and then reached by those who wait
}

func (f *Fleet) newMember(k key, id string, made bool) *member {
	return &member{fleet: f, key: k, id: id, made: made}
}

// reach returns a live connection.
func (m *member) reach(ctx context.Context, spec driver.Spec) (*sandbox.Client, error) {
	m.mu.Lock()
	if m.retired {
		m.mu.Unlock()
		return nil, errEnded()
	}
	if m.client != nil {
		select {
		case <-m.client.Done():
			m.fleet.cfg.Logger.Warn("the connection to a sandbox broke", "sandbox", m.id, m.key.label, m.key.value, "error", m.client.Err())
			m.client = nil
		default:
			defer m.mu.Unlock()
			return m.client, nil
		}
	}
	if m.attempt == nil {
		m.attempt = &attempt{done: make(chan struct{})}
		go m.try(m.attempt, spec)
	}
	current := m.attempt
	m.mu.Unlock()
	select {
	case <-current.done:
		if current.rest {
			return m.reach(ctx, spec)
		}
		return current.client, current.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// try connects: to the running guest, else to one that it starts, else to one that it makes.
func (m *member) try(a *attempt, spec driver.Spec) {
	limit := startTimeout
	if m.from != "" || m.prepare != nil {
		limit = forkTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	began := time.Now()
	how := "reconnected"
	m.mu.Lock()
	made := m.made
	m.mu.Unlock()

	client, err := (*sandbox.Client)(nil), error(nil)
	if made {
		client, err = sandbox.Connect(ctx, m.fleet.dialer(m.id))
		if err != nil {
			how = "started"
			if err = m.fleet.cfg.Driver.Start(ctx, m.id); err == nil {
				client, err = sandbox.Connect(ctx, m.fleet.dialer(m.id))
			}
		}
	} else {
		how = "created"
		if m.from != "" {
			how = "forked"
		}
		spec.ID, spec.From = m.id, m.from
		spec.Labels = maps.Clone(spec.Labels)
		if spec.Labels == nil {
			spec.Labels = make(map[string]string)
		}
		spec.Labels[m.key.label] = m.key.value
		if image := m.fleet.cfg.Image; image != "" && spec.Labels[labelImage] == "" && !m.fleet.reserved(m.key) {
			spec.Labels[labelImage] = image
		}
		if err = m.make(ctx, spec); err == nil {
			made = true
			client, err = sandbox.Connect(ctx, m.fleet.dialer(m.id))
		}
	}

	if err == nil {
		m.fleet.reached(ctx, m, client)
	}
	log := m.fleet.cfg.Logger.With("sandbox", m.id, m.key.label, m.key.value)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made = made
	m.attempt = nil
	a.err = err
	switch {
	case err != nil:
		log.Error("sandbox not reached", "error", err)
	case m.retired: // whoever retired it waits for this and then ends the sandbox
		client.Close()
		a.err = errEnded()
	default:
		m.client, a.client = client, client
		log.Info("sandbox "+how, "milliseconds", time.Since(began).Milliseconds())
	}
	close(a.done)
}

// make has the driver make it, from a recipe that is completed first. spec.Labels are its own already.
func (m *member) make(ctx context.Context, spec driver.Spec) error {
	switch {
	case m.from != "":
		if project := m.takenIn(); project != "" {
			spec.Labels[LabelProject] = project
		}
	case m.prepare != nil:
		release, err := m.prepare(ctx, &spec)
		if err != nil {
			return err
		}
		defer release()
		m.mu.Lock()
		m.project = spec.Labels[LabelProject]
		m.mu.Unlock()
	}
	return m.fleet.cfg.Driver.Create(ctx, spec)
}

// takenIn says whose files it has, "" for no project's.
func (m *member) takenIn() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.project
}

// retire drops the connection for good and waits for an attempt that is under way, which then leaves
// nothing connected. It waits no longer than an attempt may take.
func (m *member) retire() {
	m.mu.Lock()
	m.retired = true
	if m.client != nil {
		m.client.Close()
		m.client = nil
	}
	current := m.attempt
	m.mu.Unlock()
	if current != nil {
		<-current.done
	}
}

func errEnded() error {
	return &sandbox.Error{Code: "SANDBOX_ENDED", Op: "reach sandbox", Message: "the sandbox was ended meanwhile",
		Hint: "its session was deleted or tongs is stopping"}
}
