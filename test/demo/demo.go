//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/test/cluster/node"
	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/stage"
)

const (
	home   = "remora-demo"           // the namespace of the app
	abroad = "remora-demo-providers" // that of what is outside of the company
	system = "remora-system"

	virtual = "demo-llm-server"

	behind = "remora-demo-api" // the namespace of the servers behind the gateway
)

// demo is the stage, and what is said on it.
type demo struct {
	ctx      context.Context
	options  options
	step     int
	terminal bool
	env      []string   // of every command
	cluster  *node.Node // nil with -cluster current

	authority      *pki.Authority // of the providers
	qwen, moonshot string         // the names by which the app calls them
	providers      providers
}

type providers struct{ qwen, moonshot, inhouse stage.Provider }

// keys are what the made-up providers demand. The app never has them.
var keys = map[string]string{"DASHSCOPE_API_KEY": "sk-demo-dashscope", "MOONSHOT_API_KEY": "sk-demo-moonshot"}

// eventGap is the time between two events of a streamed answer.
const eventGap = 120 * time.Millisecond

func newDemo(ctx context.Context, o options) (*demo, error) {
	if _, err := os.Stat("config/default/kustomization.yaml"); err != nil {
		return nil, fmt.Errorf("run it from the top of the repository: %w", err)
	}
	d := &demo{ctx: ctx, options: o, env: os.Environ(), qwen: "dashscope.aliyuncs.com", moonshot: "api.moonshot.cn"}
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	d.terminal = err == nil
	if d.authority, err = pki.NewAuthority("providers of the demo"); err != nil {
		return nil, err
	}
	if o.cluster == "current" {
		d.qwen, d.moonshot = "dashscope."+abroad+".svc", "moonshot."+abroad+".svc"
	}
	provider := func(name, host, key string) stage.Provider {
		return stage.Provider{Namespace: abroad, Name: name, Keys: map[string]string{host: key}, ChunkDelay: eventGap, Image: d.image("demo-provider")}
	}
	d.providers = providers{
		provider("dashscope", d.qwen, keys["DASHSCOPE_API_KEY"]),
		provider("moonshot", d.moonshot, keys["MOONSHOT_API_KEY"]),
		provider("inhouse", "inhouse."+abroad, ""),
	}
	return d, os.MkdirAll(d.images(), 0o700)
}

// image is the full name of one of our images.
func (d *demo) image(name string) string {
	prefix := "remora.dev"
	if d.options.registry != "" {
		prefix = d.options.registry
	}
	return prefix + "/" + name + ":latest"
}

func (d *demo) file(name string) string { return filepath.Join(d.options.folder, name) }

// images is where the archives of images are.
func (d *demo) images() string { return d.file("images") }

// open makes sure of a cluster.
func (d *demo) open() error {
	if d.options.cluster == "current" {
		return d.openCurrent()
	}
	return d.openNode()
}

func (d *demo) close() {
	if d.cluster == nil || !d.options.end {
		return
	}
	if err := d.cluster.Down(context.WithoutCancel(d.ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
}
