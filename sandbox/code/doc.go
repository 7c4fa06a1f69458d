// Package code runs pieces of code in a sandbox whose state is kept from one to the
// next, as a notebook does: Python, JavaScript and TypeScript, with the
// interpreters that the sandbox has.
//
//	c, err := code.Create(ctx, box, code.Spec{Language: code.Python})
//	out, err := c.Run(ctx, "x = 6 * 7\nx", code.RunOptions{})
//	fmt.Println(out.Results[0].Text) // 42
//
// Each context is one interpreter of its own, an ordinary process of the sandbox.
// It goes on when the caller's process ends, and Attach finds it again with all that
// it knows. Code that raises an error is no error of Run: it is part of the Outcome.
//
// # Results
//
// What comes back is the value of the last expression, what display() is called
// with, and in Python the figures that matplotlib has open. A result has a text, and
// where the value knows how, JSON, HTML, Markdown, SVG, LaTeX, PNG or JPEG: in
// Python by the _repr_…_ methods that notebooks use, in JavaScript by display.html,
// .markdown, .svg, .png and .jpeg.
//
// # Ends
//
// A run that is interrupted, by Interrupt, by its timeout or by its context, leaves
// the state as it is at that moment: Python code sees KeyboardInterrupt, JavaScript
// is stopped where it is. An interpreter that does not stop within five seconds is
// killed. When an interpreter has ended, by that or by itself, Run says so with
// CodeInterpreterCrashed, and the next Run begins with a new one that knows nothing:
// Outcome.Fresh then says so.
//
// # Languages
//
// Python is python3, 3.8 or later, with await at the top. JavaScript is node with its
// inspector, 18 or later: names can be declared again, there is await at the top;
// modules come by require. TypeScript is the same where node can take types away,
// from 22.13 on.
package code
