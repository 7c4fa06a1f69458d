// Init is the smallest guest there can be: it boots, and runs one shell command for each connection.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	n, err := strconv.Atoi(os.Getenv("TONGS_BOOT_FD"))
	if err != nil {
		return err
	}
	data, err := io.ReadAll(os.NewFile(uintptr(n), "boot"))
	if err != nil {
		return err
	}
	var doc struct {
		Setup json.RawMessage
		Guest struct {
			ListenerFD int
			Env        []string
		}
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if _, err := boot.Run(doc.Setup); err != nil {
		return err
	}
	l, err := net.FileListener(os.NewFile(uintptr(doc.Guest.ListenerFD), "listener"))
	if err != nil {
		return err
	}
	go func() { <-term; os.Exit(0) }()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(c, doc.Guest.Env)
	}
}

func serve(c net.Conn, env []string) {
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Dir, cmd.Env = "/home/user/project", append(env, "HOME=/home/user")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}, Setsid: true}
	out, err := cmd.CombinedOutput()
	c.Write(out)
	if err != nil {
		fmt.Fprintf(c, "[%v]\n", err)
	}
}
