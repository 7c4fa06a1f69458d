// Package sandboxtest is the one behavioural suite of the sandbox's contract. It
// speaks to a sandbox through a [sandbox.Client] only, so that the same cases hold
// the guest by itself, a sandbox of each driver, and the public endpoint to the
// same answers.
//
// A case opens a sandbox of its own and runs beside the others; each has a
// deadline, and waits for what happens and never for time to pass.
package sandboxtest
