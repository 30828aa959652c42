// Provider is the fake LLM provider as a program, for the pods of the demo and of tests:
//
//	provider [FLAGS] ADDRESS HOST=KEY...
//
// is each HOST there (* is any), and demands its KEY; HOST= demands none. Told to end, it completes its answers. It says first whom a caller has to trust, in PEM (not with
// -tls, where the caller knows), and then of each request, in one line, what came of it.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"remora.dev/remora/test/llmserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	options := llmserver.Options{Keys: map[string]string{}}
	flags := flag.NewFlagSet("provider", flag.ContinueOnError)
	certificate := flags.String("tls", "", "a folder with tls.crt and tls.key, for all hosts; without it, the provider makes its own")
	var told string
	record := flags.String("record", "", "an address for people and tests: GET and DELETE /requests, POST and DELETE /faults")
	flags.StringVar(&options.PlainAddr, "plain", "", "an address for plain HTTP, too")
	flags.DurationVar(&options.ChunkDelay, "chunk-delay", 0, "the time between two events of a stream")
	flags.StringVar(&options.Name, "name", "", "what it says of itself in the header "+llmserver.NameHeader)
	flags.StringVar(&told, "told", "all", "of which requests it says a line: all or none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() < 2 {
		return errors.New("usage: provider [FLAGS] ADDRESS HOST=KEY [HOST=KEY]..., all of them")
	}
	options.Addr = flags.Arg(0)
	for _, one := range flags.Args()[1:] {
		host, key, ok := strings.Cut(one, "=")
		if !ok {
			return fmt.Errorf("%q is not HOST=KEY", one)
		}
		options.Hosts = append(options.Hosts, host)
		if key != "" {
			options.Keys[host] = key
		}
	}
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(*certificate, "tls.crt"), filepath.Join(*certificate, "tls.key"))
		if err != nil {
			return err
		}
		options.Certificate = &pair
	}
	said := make(chan struct{}) // nothing is told before the authority
	if told != "none" {
		options.Told = func(r llmserver.Request) {
			<-said
			fmt.Fprint(out, line(r))
		}
	}
	server, err := llmserver.Start(options)
	if err != nil {
		return err
	}
	defer server.Close()
	if *certificate == "" {
		fmt.Fprintf(out, "%s", server.CAPEM())
	}
	close(said)
	if *record != "" {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *record)
		if err != nil {
			return err
		}
		defer listener.Close()
		go func() { _ = http.Serve(listener, recorder(server)) }() // it ends with the listener
	}
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	server.Shutdown(ctx)
	return nil
}

// farewell is how long answers may still take when it is told to end.
const farewell = 20 * time.Second

// line says what came of a request.
func line(r llmserver.Request) string {
	scheme := "http://"
	if r.TLS {
		scheme = "https://"
	}
	return fmt.Sprintln(r.Status, r.Method, scheme+r.Host+r.Path)
}
