package remote_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// Ten lines to run a command. (`tongs up` must be running; $TONGS_API_TOKEN is the text of the file
// api-token in its home, and `tongs sandbox create --name web` has made the sandbox.)
func ExampleDial() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	box, err := remote.Dial(ctx, "http://127.0.0.1:8788", remote.DialOptions{Token: os.Getenv("TONGS_API_TOKEN"), Sandbox: "web"})
	if err != nil {
		log.Fatal(err) // says what to do
	}
	defer box.Close()
	res, err := box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"uname", "-s"}}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s(status %d)\n", res.Stdout, res.Exit.Code)
}
