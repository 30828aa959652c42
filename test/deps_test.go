// Package test holds what is judged across packages. Here: which package may know which. The arrows keep the sidecar small,
// since it is multiplied by every pod, and the packages that decide free of anything that acts, so that the webhook and the
// sidecar cannot come to different answers.
package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "remora.dev/remora"

// A goPackage is one package of this module as `go list -json` tells it.
type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string // by the package's own files, tests excluded
	Deps       []string // all that it links, directly or not
}

// An arrow forbids. Where a package matches from and is none of except, it must not import (direct), nor link by whatever way
// (linked), a package that matches. Patterns: an import path, which with /... at its end includes what is below it.
type arrow struct {
	why    string
	from   []string
	except []string
	direct []string
	linked []string
}

// Pure: the same input gives the same answer, whoever asks and whenever.
var pure = []string{
	module + "/sidecar/routing/...",
	module + "/sidecar/redirect/plan",
	module + "/sidecar/launch/...",
	module + "/sidecar/balance/...",
	module + "/sidecar/usage/...",
	module + "/sidecar/telemetry",
	module + "/sidecar/trace",
	module + "/sidecar/record",
	module + "/injector/...",
}

// closed are the packages that import nothing but the standard library, what is below them, and these.
var closed = map[string][]string{
	module + "/apis":            {"k8s.io/apimachinery/..."},
	module + "/sidecar/usage":   nil,
	module + "/sidecar/metrics": {"github.com/VictoriaMetrics/metrics", module + "/sidecar/record", module + "/sidecar/routing", module + "/sidecar/launch"},
}

var arrows = []arrow{
	{
		why:    "the webhook serves admission with net/http and proxies nothing",
		from:   []string{module + "/webhook/..."},
		linked: []string{"github.com/valyala/fasthttp/..."},
	},
	{
		why:  "the sidecar is multiplied by every pod: it contains nothing of the control process",
		from: []string{module + "/sidecar/..."},
		linked: []string{
			module + "/webhook/...", module + "/injector/...",
			"sigs.k8s.io/controller-runtime/...", "github.com/cert-manager/...",
		},
	},
	{
		why:  "a pure package decides from what it is handed",
		from: pure,
		// apimachinery itself reaches net, os and a logger, so these are forbidden in our own imports only.
		direct: []string{
			"net", "net/http/...", "net/rpc/...", "net/smtp", "os/...", "io/ioutil", "syscall", "plugin",
			"log/...", "github.com/go-logr/...", "k8s.io/klog/...",
			"crypto/rand",
		},
		linked: []string{
			"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/...", "github.com/valyala/fasthttp/...",
			"github.com/fsnotify/...", "go.uber.org/zap/...", "github.com/go-logr/zapr/...", "github.com/VictoriaMetrics/...",
		},
	},
	{
		why:    "a pure package gives the same answer each time; but the ids of traces are of use because they are random",
		from:   pure,
		except: []string{module + "/sidecar/trace"},
		direct: []string{"math/rand/..."},
	},
	{
		why:    "only the sidecar counts for itself; the webhook's counters are controller-runtime's, redirect has none",
		from:   []string{module + "/webhook/...", module + "/sidecar/redirect/..."},
		linked: []string{"github.com/VictoriaMetrics/...", module + "/sidecar/metrics/..."},
	},
	{
		why:    "redirect is a small program: its command line and its plan bring no Kubernetes libraries along",
		from:   []string{module + "/sidecar/redirect/..."},
		linked: []string{"k8s.io/...", "sigs.k8s.io/...", module + "/apis/..."},
	},
	{
		why:    "the API types are imported by everything and by other people's programs",
		from:   []string{module + "/apis/..."},
		linked: []string{"k8s.io/api/...", "k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/..."},
	},
	{
		why:    "what is shipped contains nothing of the tests (tests anywhere may use the fake provider)",
		from:   []string{module + "/..."},
		except: []string{module + "/test/..."},
		linked: []string{module + "/test/..."},
	},
	{
		why:    "the kinds of others are read by types of our own; tests take their definitions as files",
		from:   []string{module + "/..."},
		linked: []string{"istio.io/...", "sigs.k8s.io/gateway-api-inference-extension/..."},
	},
	{
		why:    "the proxy knows no Kubernetes; it meets the watch only in the store of snapshots",
		from:   []string{module + "/sidecar/proxy/..."},
		linked: []string{module + "/sidecar/watch/...", "k8s.io/client-go/..."},
	},
	{
		why:    "the watch knows no proxy",
		from:   []string{module + "/sidecar/watch/..."},
		linked: []string{module + "/sidecar/proxy/...", "github.com/valyala/fasthttp/..."},
	},
}

func TestEveryPackageKnowsOnlyWhatItMay(t *testing.T) {
	watchSources(t, "..")
	packages := listPackages(t, "..")
	heart := module + "/sidecar/routing"
	if !slices.ContainsFunc(packages, func(p goPackage) bool { return p.ImportPath == heart }) {
		t.Fatalf("go list does not show %s: the arrows are judged against something that is not this module", heart)
	}
	for _, violation := range violations(t, packages) {
		t.Error(violation)
	}
}

func violations(t *testing.T, packages []goPackage) []string {
	t.Helper()
	var found []string
	for _, p := range packages {
		for _, a := range arrows {
			if !matchesAny(a.from, p.ImportPath) || matchesAny(a.except, p.ImportPath) {
				continue
			}
			for _, path := range p.Imports {
				if matchesAny(a.direct, path) {
					found = append(found, fmt.Sprintf("%s imports %s: %s", p.ImportPath, path, a.why))
				}
			}
			for _, path := range p.Deps {
				if matchesAny(a.linked, path) {
					found = append(found, fmt.Sprintf("%s reaches %s: %s", p.ImportPath, path, a.why))
				}
			}
		}
		for root, allowed := range closed {
			if matchesAny([]string{root + "/..."}, p.ImportPath) {
				found = append(found, strangers(p, append([]string{root + "/..."}, allowed...))...)
			}
		}
		if matchesAny(pure, p.ImportPath) {
			found = append(found, impurities(t, p)...)
		}
	}
	return found
}

// strangers names the imports of a package that are neither the standard library's nor allowed.
func strangers(p goPackage, allowed []string) []string {
	var found []string
	for _, path := range p.Imports {
		host, _, _ := strings.Cut(path, "/")
		if strings.Contains(host, ".") && !matchesAny(allowed, path) {
			found = append(found, fmt.Sprintf("%s imports %s: it imports the standard library only, and %s", p.ImportPath, path, strings.Join(allowed, ", ")))
		}
	}
	return found
}

// impurities names each use of the clock and each goroutine in a package's source.
func impurities(t *testing.T, p goPackage) []string {
	t.Helper()
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}
	var found []string
	for _, name := range p.GoFiles {
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		report := func(node ast.Node, what string) {
			line := files.Position(node.Pos()).Line
			found = append(found, fmt.Sprintf("%s (%s:%d) %s: a pure package has no clock and no goroutine", p.ImportPath, name, line, what))
		}
		timeName := importedAs(file, "time")
		if timeName == "." {
			report(file.Name, "dot-imports time")
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.GoStmt:
				report(node, "starts a goroutine")
			case *ast.SelectorExpr:
				qualifier, ok := node.X.(*ast.Ident)
				if ok && timeName != "" && qualifier.Name == timeName && slices.Contains(clock, node.Sel.Name) {
					report(node, "uses time."+node.Sel.Name)
				}
			}
			return true
		})
	}
	return found
}

// importedAs tells the name by which a file calls an imported package, or "" where it does not import it.
func importedAs(file *ast.File, path string) string {
	for _, spec := range file.Imports {
		if imported, _ := strconv.Unquote(spec.Path.Value); imported != path {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path
	}
	return ""
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		prefix, tree := strings.CutSuffix(pattern, "/...")
		return path == prefix || tree && strings.HasPrefix(path, prefix+"/")
	})
}

func listPackages(t *testing.T, dir string, environment ...string) []goPackage {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", "./...")
	list.Dir = dir
	list.Env = append(os.Environ(), environment...)
	var stderr strings.Builder
	list.Stderr = &stderr
	output, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}

// watchSources looks at every Go file and folder of the module. go test remembers a passed test by the files that the test
// itself has looked at, and go list is another process: without this, a new import would be met with "ok (cached)".
func watchSources(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "node_modules", "bin"}, entry.Name()) {
			return fs.SkipDir
		}
		if entry.IsDir() || filepath.Ext(path) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Without this, an arrow with a misspelt path would forbid nothing and nobody would know.
func TestAPackageThatKnowsTooMuchIsNamed(t *testing.T) {
	dir := t.TempDir()
	write := func(path, content string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	goMod := "module " + module + "\n\ngo 1.24\n"
	for _, stranger := range []string{
		"github.com/valyala/fasthttp", "github.com/fsnotify/fsnotify", "github.com/go-logr/logr", "github.com/cert-manager/cert-manager",
		"github.com/VictoriaMetrics/metrics", "go.uber.org/zap", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "sigs.k8s.io/controller-runtime",
	} {
		goMod += fmt.Sprintf("require %s v0.0.0\nreplace %s => ./stranger/%s\n", stranger, stranger, stranger)
		write("stranger/"+stranger+"/go.mod", "module "+stranger+"\n")
		write("stranger/"+stranger+"/code.go", "package code\n")
	}
	write("go.mod", goMod)

	imports := func(paths ...string) string {
		source := "package code\n"
		for _, path := range paths {
			source += fmt.Sprintf("import _ %q\n", path)
		}
		return source
	}
	write("apis/v1beta1/code.go", imports("time", "k8s.io/apimachinery"))
	write("apis/v1beta2/code.go", imports("k8s.io/api", "github.com/fsnotify/fsnotify"))
	write("sidecar/routing/code.go", "package code\n\nimport \"time\"\n\nfunc f() { go f(); _ = time.Now(); _ = time.Second }\n")
	write("sidecar/routing/alias.go", "package code\n\nimport clock \"time\"\n\nvar tick = clock.Tick\n")
	write("sidecar/launch/code.go", imports("net/url", "net", "os", "log/slog", "math/rand/v2"))
	write("sidecar/redirect/plan/code.go", imports("go.uber.org/zap", module+"/test/llmserver"))
	write("sidecar/redirect/code.go", imports("os/exec", "k8s.io/apimachinery"))
	write("sidecar/usage/code.go", imports(module+"/sidecar/usage/below", module+"/sidecar/redirect/plan"))
	write("sidecar/usage/below/code.go", "package below\n\nimport \"time\"\n\nvar now = time.Now\n")
	write("sidecar/metrics/code.go", imports("sync", "github.com/VictoriaMetrics/metrics", "github.com/fsnotify/fsnotify"))
	write("sidecar/watch/code.go", imports("github.com/valyala/fasthttp", module+"/webhook"))
	write("sidecar/proxy/code.go", imports("k8s.io/client-go", "sigs.k8s.io/controller-runtime", module+"/sidecar/watch"))
	write("injector/code.go", imports("github.com/go-logr/logr"))
	write("webhook/code.go", imports(module+"/injector", module+"/sidecar/metrics", "github.com/cert-manager/cert-manager"))
	write("test/llmserver/code.go", imports("github.com/valyala/fasthttp", "os"))

	got := violations(t, listPackages(t, dir, "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off"))
	for i, violation := range got {
		got[i], _, _ = strings.Cut(strings.ReplaceAll(violation, module+"/", ""), ": ")
	}
	slices.Sort(got)
	want := []string{
		"apis/v1beta2 imports github.com/fsnotify/fsnotify",
		"apis/v1beta2 imports k8s.io/api",
		"apis/v1beta2 reaches k8s.io/api",
		"injector imports github.com/go-logr/logr",
		"sidecar/launch imports log/slog",
		"sidecar/launch imports math/rand/v2",
		"sidecar/launch imports net",
		"sidecar/launch imports os",
		"sidecar/metrics imports github.com/fsnotify/fsnotify",
		"sidecar/proxy reaches github.com/cert-manager/cert-manager",
		"sidecar/proxy reaches injector",
		"sidecar/proxy reaches k8s.io/client-go",
		"sidecar/proxy reaches sidecar/watch",
		"sidecar/proxy reaches sigs.k8s.io/controller-runtime",
		"sidecar/proxy reaches webhook",
		"sidecar/redirect reaches k8s.io/apimachinery",
		"sidecar/redirect/plan reaches github.com/valyala/fasthttp",
		"sidecar/redirect/plan reaches go.uber.org/zap",
		"sidecar/redirect/plan reaches test/llmserver",
		"sidecar/routing (alias.go:5) uses time.Tick",
		"sidecar/routing (code.go:5) starts a goroutine",
		"sidecar/routing (code.go:5) uses time.Now",
		"sidecar/usage imports sidecar/redirect/plan",
		"sidecar/usage reaches github.com/valyala/fasthttp",
		"sidecar/usage reaches go.uber.org/zap",
		"sidecar/usage reaches test/llmserver",
		"sidecar/usage/below (code.go:5) uses time.Now",
		"sidecar/watch reaches github.com/cert-manager/cert-manager",
		"sidecar/watch reaches github.com/valyala/fasthttp",
		"sidecar/watch reaches injector",
		"sidecar/watch reaches webhook",
		"webhook reaches github.com/VictoriaMetrics/metrics",
		"webhook reaches sidecar/metrics",
	}
	if !slices.Equal(got, want) {
		t.Errorf("named:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
