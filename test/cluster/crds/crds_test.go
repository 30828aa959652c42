package crds_test

import (
	"slices"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/test/cluster/crds"
)

func TestTheDefinitionsAreThoseOfTheKindsAndServeTheVersionsThatRemoraReads(t *testing.T) {
	t.Setenv("GOPROXY", "off") // what is in the module cache is enough
	text, err := crds.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string][]string{}
	for document := range strings.SplitSeq(strings.TrimPrefix(text, "---\n"), "\n---\n") {
		var definition apiextensions.CustomResourceDefinition
		if err := yaml.UnmarshalStrict([]byte(document), &definition); err != nil {
			t.Fatal(err)
		}
		for _, v := range definition.Spec.Versions {
			if v.Served {
				versions[definition.Name] = append(versions[definition.Name], v.Name)
			}
		}
	}
	for name, want := range map[string][]string{
		crds.VirtualServices: {"v1", "v1alpha3", "v1beta1"}, crds.DestinationRules: {"v1", "v1alpha3", "v1beta1"},
		crds.Gateways: {"v1", "v1alpha3", "v1beta1"}, crds.InferencePools: {"v1"},
	} {
		if slices.Sort(versions[name]); !slices.Equal(versions[name], want) {
			t.Errorf("%s is served as %v, want %v", name, versions[name], want)
		}
	}
	if len(versions) != len(crds.All) {
		t.Errorf("there are definitions of %v", versions)
	}
}

func TestAnUnknownNameIsNamed(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	if _, err := crds.Files(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := crds.Manifest(t.Context(), "sheep.networking.istio.io"); err == nil || !strings.Contains(err.Error(), "sheep.networking.istio.io") {
		t.Errorf("the error is %v", err)
	}
}
