package verify

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text writes the table for people: the doors, and what was seen where a door is not as it should be.
func (r *Report) Text(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	group := ""
	for _, row := range r.Rows {
		if row.Group != group {
			group = row.Group
			fmt.Fprintf(tab, "%s\n", strings.ToUpper(group))
		}
		fmt.Fprintf(tab, "  %s\t%s\n", row.Name, summary(row))
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, result := range []Result{Broken, Escaped} {
		for _, found := range r.Find(result) {
			fmt.Fprintf(w, "\n%s  %s\n", result, found)
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Totals())
	return err
}

// Totals is one line with the numbers.
func (r *Report) Totals() string {
	return fmt.Sprintf("%d doors, %d checks: %d sandbox, %d refused, %d ESCAPED, %d broken  (%.1f s)", len(r.Rows),
		r.Count(Sandbox)+r.Count(Refused)+r.Count(Escaped)+r.Count(Broken), r.Count(Sandbox), r.Count(Refused), r.Count(Escaped), r.Count(Broken), r.Seconds)
}

// summary is a row in few words: one result, or each result with its families.
func summary(row Row) string {
	by := map[Result][]string{}
	for _, c := range row.Cells {
		by[c.Result] = append(by[c.Result], c.Family)
	}
	var parts []string
	for _, result := range []Result{Escaped, Broken, Sandbox, Refused} {
		switch families := by[result]; {
		case len(families) == 0:
		case len(families) == len(row.Cells):
			parts = append(parts, string(result))
		default:
			parts = append(parts, fmt.Sprintf("%s: %s", result, strings.Join(families, ", ")))
		}
	}
	return strings.Join(parts, "; ")
}

// Markdown writes the table for docs/doors.md.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| door |")
	for _, f := range r.Families {
		b.WriteString(" " + f + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(r.Families)) + "\n")
	for _, row := range r.Rows {
		if row.Each {
			fmt.Fprintf(&b, "| %s |", cell(row.Name))
			for _, c := range row.Cells {
				b.WriteString(" " + string(c.Result) + " |")
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\n| | door | leads to | seen |\n|---|---|---|---|\n")
	for _, row := range r.Rows {
		if !row.Each && len(row.Cells) > 0 {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", row.Group, cell(row.Name), row.Cells[0].Result, cell(row.Cells[0].Evidence))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell makes a text safe inside a table.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "\n", " ").Replace(text)
}
