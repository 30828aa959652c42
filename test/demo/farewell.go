//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func (d *demo) farewell(took time.Duration) {
	d.step = 0
	d.title(fmt.Sprintf("That was all, in %.0f s. Things to try", took.Seconds()))
	config := d.file("kubeconfig")
	if d.cluster != nil {
		config = d.cluster.Kubeconfig()
	}
	if absolute, err := filepath.Abs(config); err == nil {
		config = absolute
	}
	fmt.Println("  export KUBECONFIG=" + config)
	if _, err := exec.LookPath("kubectl"); err != nil && d.cluster != nil {
		fmt.Println("  export PATH=$PATH:" + filepath.Dir(d.cluster.Binary("kubectl")))
	}
	if !d.options.gateway {
		if folder, err := filepath.Abs(d.options.folder); err == nil {
			fmt.Println("  export PATH=$PATH:" + folder)
		}
	}
	tries := [][2]string{
		{"kubectl edit llmroute " + virtual, "move some weight; read the warning"},
		{"kubectl get llmproviders,llmroutes --output wide", "what runs, and why not"},
		{"kubectl remora explain request --from deploy/sleep \\\n    --host " + virtual, "where a call goes, and why"},
		{"kubectl exec deployment/sleep -it -- sh", "be the app; call " + virtual},
	}
	if d.options.gateway {
		tries = [][2]string{
			{"kubectl scale deployment/api --replicas=8", "and call again"},
			{"kubectl edit virtualservice api-virtual-service", "add a timeout, a match, a fault"},
			{"kubectl get gateways,virtualservices --output yaml", "what the conditions say"},
		}
	}
	for _, try := range tries {
		command := try[0]
		if first, last, two := strings.Cut(command, "\n"); two {
			fmt.Print("\n  ", first)
			command = last
		}
		fmt.Printf("\n  %-52s %s", command, d.paint("32", "# "+try[1]))
	}
	fmt.Println()
	d.say("")
	switch {
	case d.cluster == nil:
		fmt.Println("To clean up:  kubectl delete namespace " + home + " " + abroad)
		fmt.Println("and, if Remora is to go, too:  kubectl delete -k config/default")
	case d.options.end:
		fmt.Println("The cluster ends now.")
	default:
		fmt.Println("The cluster runs until: make demo-down")
	}
}
