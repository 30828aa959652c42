package pinned

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"remora.dev/remora/test/netns"
)

// Play takes the role that the first argument names, if it is one: then it does not return.
func Play(play func(role string, args []string) (isRole bool, err error)) {
	if len(os.Args) > 1 {
		if isRole, err := play(os.Args[1], os.Args[2:]); isRole {
			exit(err)
		}
	}
}

// Main is that of a benchmark which starts its own program again in other roles; see Play. Else run measures, in a network namespace that
// knows these hosts, until it is done or interrupted. Main does not return.
func Main(hosts map[string]string, play func(role string, args []string) (isRole bool, err error), run func(ctx context.Context, args []string, out, progress io.Writer) error) {
	Play(play)
	netns.Enter(hosts)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		err = nil
	case err != nil && ctx.Err() != nil:
		err = errors.New("interrupted")
	}
	stop()
	exit(err)
}

// Begin binds this process to the core of the load, and gives that of the proxies and a folder for what they need. Who has begun calls end.
func Begin() (load, proxy int, folder string, end func(), err error) {
	if load, proxy, err = Cores(); err != nil {
		return 0, 0, "", nil, err
	}
	if err = BindSelf(load); err != nil {
		return 0, 0, "", nil, err
	}
	if folder, err = os.MkdirTemp("", "remora-bench-"); err != nil {
		return 0, 0, "", nil, err
	}
	return load, proxy, folder, func() { _ = os.RemoveAll(folder) }, nil
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
