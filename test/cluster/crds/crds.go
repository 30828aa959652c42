// Package crds gives the definitions of kinds that are others': those of Istio that Remora executes, and InferencePool. They are files of Go
// modules that test/cluster/crds/modules/go.mod pins; go downloads them once, into its module cache, and after that no network is needed.
package crds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// The kinds that Remora executes, by the names of their definitions.
const (
	VirtualServices  = "virtualservices.networking.istio.io"
	DestinationRules = "destinationrules.networking.istio.io"
	Gateways         = "gateways.networking.istio.io"
	InferencePools   = "inferencepools.inference.networking.k8s.io"
)

// All are the kinds above.
var All = []string{VirtualServices, DestinationRules, Gateways, InferencePools}

// files are where the definitions stand, by module.
var files = map[string]string{
	"istio.io/api": "kubernetes/customresourcedefinitions.gen.yaml",
	"sigs.k8s.io/gateway-api-inference-extension": "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml",
}

// Files gives the paths of the files as their projects publish them, Istio's first. That of Istio has all of its kinds.
func Files(ctx context.Context) ([]string, error) {
	modules, err := sources()
	if err != nil {
		return nil, err
	}
	// Without arguments, go would download the modules that these need, too.
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "istio.io/api", "sigs.k8s.io/gateway-api-inference-extension")
	cmd.Dir = modules
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("the definitions of Istio and of InferencePool, by go mod download in %s: %w: %s%s\nRemedy: let Go download modules "+
			"once (go env GOPROXY), or bring a filled module cache", modules, err, said.String(), out)
	}
	var paths []string
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var module struct{ Path, Dir string }
		if err := decoder.Decode(&module); err != nil {
			return nil, fmt.Errorf("go mod download: %w", err)
		}
		paths = append(paths, filepath.Join(module.Dir, filepath.FromSlash(files[module.Path])))
	}
	slices.Sort(paths)
	return paths, nil
}

// Manifest is YAML of the definitions with these names; without any, of All. It is more than the annotation of a plain kubectl apply can hold:
// apply it --server-side, or create it.
func Manifest(ctx context.Context, names ...string) (string, error) {
	if len(names) == 0 {
		names = All
	}
	paths, err := Files(ctx)
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var object struct{ Metadata struct{ Name string } }
			// Only the head is read: the schemas are long.
			head, _, _ := strings.Cut(document, "\nspec:\n")
			if err := yaml.Unmarshal([]byte(head), &object); err != nil {
				return "", fmt.Errorf("%s: %w", path, err)
			}
			found[object.Metadata.Name] = strings.TrimPrefix(strings.TrimSpace(document), "---\n")
		}
	}
	var manifest strings.Builder
	for _, name := range names {
		if found[name] == "" {
			return "", fmt.Errorf("there is no definition of %s in %v", name, paths)
		}
		manifest.WriteString("---\n" + found[name] + "\n")
	}
	return manifest.String(), nil
}

// sources finds the folder of the pinned modules, from any folder of the checkout: tests run in that of their package.
func sources() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := start; ; at = filepath.Dir(at) {
		dir := filepath.Join(at, "test", "cluster", "crds", "modules")
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if at == filepath.Dir(at) {
			return "", errors.New(start + " is in no checkout of Remora, whose test/cluster/crds/modules says which definitions to take")
		}
	}
}
