package verify

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// door is a door and how it is driven: exactly one of tool, run and change is set.
type door struct {
	Door
	model   bool // it needs a scripted model
	command bool // it needs Target.Command

	// tool makes a call of a family's turn and names the file that is its effect, "" for none.
	tool func(p *probe, f Family) (call step, effect string)
	// run does all by itself. The family is the first one, if there are any.
	run func(ctx context.Context, p *probe, g *ground, f Family) Cell
	// change is a request that must change nothing. Its word is looked for afterwards.
	change func(ctx context.Context, p *probe, g *ground, word string) request
}

// doors are all doors, in the order of the table.
func doors() []door {
	var all []door
	for _, group := range [][]door{toolDoors(), modelDoors(), personDoors(), partDoors(), fileDoors(), terminalDoors(), keyDoors(), linkDoors(), networkDoors(), frontDoors(), changeDoors()} {
		all = append(all, group...)
	}
	return all
}

// parallel bounds how many groups of doors are driven at a time, each in a session of its own.
const parallel = 4

// drive drives all doors that are not left out.
func (p *probe) drive(ctx context.Context) []Row {
	var rows []*Row
	var tools, changes []int // indexes of rows
	of := map[int]door{}
	groups, order := map[string][]int{}, []string{}
	for _, d := range doors() {
		if p.t.skipped(d) {
			continue
		}
		at := len(rows)
		rows, of[at] = append(rows, &Row{Door: d.Door}), d
		switch {
		case d.tool != nil:
			tools = append(tools, at)
		case d.change != nil:
			changes = append(changes, at)
		default:
			name := d.Group
			if p.t.Quick {
				name = "quick"
			}
			if groups[name] == nil {
				order = append(order, name)
			}
			groups[name] = append(groups[name], at)
		}
	}
	var todo errgroup.Group
	todo.SetLimit(parallel)
	cells := make([][]Cell, len(p.t.Families)) // by family, in the order of tools
	for n, f := range p.t.Families {
		if len(tools) > 0 {
			todo.Go(func() error {
				var driven []door
				for _, at := range tools {
					driven = append(driven, of[at])
				}
				cells[n] = p.family(ctx, f, driven)
				return nil
			})
		}
	}
	for _, name := range order {
		todo.Go(func() error {
			p.group(ctx, rows, groups[name], of)
			return nil
		})
	}
	_ = todo.Wait() // they return none
	for n, at := range tools {
		for i, f := range p.t.Families {
			cell := cells[i][n]
			cell.Family = f.Name
			rows[at].Cells = append(rows[at].Cells, cell)
		}
		p.tell(rows[at])
	}
	if len(changes) > 0 { // last: should one come through, it may end OpenCode
		p.change(ctx, rows, changes, of)
	}
	out := make([]Row, len(rows))
	for i, r := range rows {
		out[i] = *r
	}
	return out
}

func (p *probe) tell(row *Row) {
	if p.t.Progress == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t.Progress(*row)
}

// first is the family that drives what is driven once.
func (p *probe) first() Family {
	if n := len(p.t.Families); n > 0 {
		return p.t.Families[n-1]
	}
	return Family{}
}

// group drives the doors of one group, one after the other in one session.
func (p *probe) group(ctx context.Context, rows []*Row, group []int, of map[int]door) {
	g, err := p.ground(ctx, p.marker)
	for _, at := range group {
		began := time.Now()
		cell := broken("no session: %v", err)
		if err == nil {
			one, cancel := context.WithTimeoutCause(ctx, doorTimeout, fmt.Errorf("no end after %v", doorTimeout))
			cell = of[at].run(one, p, g, p.first())
			cancel()
		}
		cell.Seconds = time.Since(began).Seconds()
		rows[at].Cells = []Cell{cell}
		p.tell(rows[at])
	}
}

// family drives all tools with one model: each is a call of one turn.
func (p *probe) family(ctx context.Context, f Family, driven []door) []Cell {
	cells := make([]Cell, len(driven))
	all := func(cell Cell) []Cell {
		for i := range cells {
			cells[i] = cell
		}
		return cells
	}
	g, err := p.ground(ctx, p.marker)
	if err != nil {
		return all(broken("no session: %v", err))
	}
	if err := p.prepareTools(ctx, g, f); err != nil {
		return all(broken("%v", err))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, doorTimeout, fmt.Errorf("no end after %v", doorTimeout))
	defer cancel()
	steps, effects := make([]step, len(driven)), make([]string, len(driven))
	for i, d := range driven {
		steps[i], effects[i] = d.tool(p, f)
	}
	parts, _, err := p.turn(ctx, g.session, prompt(f, []step{{"tools": steps}, {"text": "done"}}))
	for i := range driven {
		if i < len(parts) && parts[i].Tool != steps[i]["tool"] && parts[i].Tool != "invalid" {
			cells[i] = broken("%s was called instead of it", parts[i].Tool)
			continue
		}
		if i >= len(parts) {
			cells[i] = broken("the turn ended before it was called: %v", err)
			if led := p.effectCell(ctx, g, effects[i]); effects[i] != "" && led.Result == Escaped {
				cells[i] = led
			}
			continue
		}
		cells[i] = p.judgeTool(ctx, g, parts[i], effects[i])
	}
	return cells
}
