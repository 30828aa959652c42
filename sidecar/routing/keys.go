package routing

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"remora.dev/remora/apis/v1beta1"
)

// judgeKeyReference looks at one reference to a key.
func judgeKeyReference(f *findings, field string, ref *v1beta1.SecretKeyReference) {
	judgeReference(f, field+".name", ref.Name)
	if len(validation.IsConfigMapKey(secretKey(ref))) > 0 {
		f.invalid(InvalidValue, field+".key", "%q cannot be a key of a Secret: use letters, digits, -, _ and ., at most 253", ref.Key)
	}
}

// judgeKeyReferences looks at a list of them.
func judgeKeyReferences(f *findings, field string, c *v1beta1.OpenAIConfig) {
	refs := c.APIKeyRefs
	if refs == nil {
		return
	}
	if c.APIKey != "" {
		f.invalid(InvalidValue, field, "is given together with apiKey: remove one of them")
	}
	if c.APIKeyRef != nil {
		f.invalid(InvalidValue, field, "is given together with apiKeyRef: remove one of them")
	}
	if n := len(refs); n == 0 {
		f.invalid(InvalidValue, field, "is empty: name a Secret, or leave it out")
	} else if n > v1beta1.MaxKeys {
		f.invalid(InvalidValue, field, "has %d entries: at most %d are allowed", n, v1beta1.MaxKeys)
		refs = refs[:v1beta1.MaxKeys]
	}
	with, without := 0, 0
	shares := false
	seen := map[v1beta1.SecretKeyReference]bool{}
	for i := range refs {
		at := fmt.Sprintf("%s[%d]", field, i)
		judgeKeyReference(f, at, &refs[i].SecretKeyReference)
		id := v1beta1.SecretKeyReference{Name: refs[i].Name, Key: secretKey(&refs[i].SecretKeyReference)}
		if seen[id] {
			f.invalid(InvalidValue, at, "is the same key as in an earlier entry: give that one the weight of both, and remove this one")
		}
		seen[id] = true
		w := refs[i].Weight
		if w == nil {
			without++
			continue
		}
		with++
		shares = shares || *w != 0
		if *w < 0 || *w > maxWeight {
			f.invalid(InvalidValue, at+".weight", "%d is not a weight: use 0 to %d", *w, maxWeight)
		}
	}
	switch {
	case with > 0 && without > 0:
		f.invalid(InvalidValue, field, "%d of %d entries have a weight: give every one a weight, or none", with, len(refs))
	case with > 0 && !shares:
		f.invalid(InvalidValue, field, "every weight is 0, so no key would be sent: give one of them more")
	}
}

const maxWeight = 1_000_000

// judgeUse looks at who may use a provider, and for how long.
func judgeUse(f *findings, s *v1beta1.LLMProviderSpec) {
	judgeExport(f, s)
	if n := len(s.AllowedUIDs); s.AllowedUIDs != nil && n == 0 {
		f.invalid(InvalidValue, "spec.allowedUIDs", "is empty, so nobody could use the provider: name a user, or leave it out")
	} else if n > v1beta1.MaxAllowedUIDs {
		f.invalid(InvalidValue, "spec.allowedUIDs", "has %d entries: at most %d are allowed", n, v1beta1.MaxAllowedUIDs)
	}
	for i, uid := range s.AllowedUIDs[:min(len(s.AllowedUIDs), v1beta1.MaxAllowedUIDs)] {
		if uid < 0 || uid > v1beta1.MaxUID {
			f.invalid(InvalidValue, fmt.Sprintf("spec.allowedUIDs[%d]", i), "%d is not a user: use 0 to %d", uid, int64(v1beta1.MaxUID))
		}
	}
	if d := s.RevocationGracePeriod; d != nil && d.Duration < 0 {
		f.invalid(InvalidValue, "spec.revocationGracePeriod", "%s is negative: use 0s to cut at once, or leave it out", d.Duration)
	}
}

func judgeExport(f *findings, s *v1beta1.LLMProviderSpec) {
	const field = "spec.exportTo"
	if n := len(s.ExportTo); n > v1beta1.MaxExportTo {
		f.invalid(InvalidValue, field, "has %d entries: at most %d are allowed; \"*\" means every namespace", n, v1beta1.MaxExportTo)
	}
	for i, to := range s.ExportTo[:min(len(s.ExportTo), v1beta1.MaxExportTo)] {
		if to != v1beta1.ExportToAll && to != v1beta1.ExportToOwn && len(validation.IsDNS1123Label(string(to))) > 0 {
			f.invalid(InvalidValue, fmt.Sprintf("%s[%d]", field, i), "%q is not the name of a namespace: write one, or \"*\" for every namespace", to)
		}
	}
	switch {
	case !exported(s, f.object.Namespace):
	case f.object.Namespace != v1beta1.InstallationNamespace:
		f.invalid(InvalidValue, field, "only providers of namespace %s are exported: move the provider and its Secrets there, or remove exportTo", v1beta1.InstallationNamespace)
	case len(v1beta1.ExportedEntry(f.object.Name)) > v1beta1.MaxKeysSecretEntry:
		f.invalid(InvalidValue, "metadata.name", "has more than the %d characters that an exported provider may have: choose a shorter name", v1beta1.MaxKeysSecretEntry-len(v1beta1.ExportedPrefix))
	case !f.hasInvalid("spec.host") && !strings.Contains(s.Host, "."): // the owner of a Service of that name would get the key
		f.invalid(InvalidValue, "spec.host", "%q is a short name, which pods of another namespace look up in their own: write it in full, such as %s.%s.svc", s.Host, s.Host, f.object.Namespace)
	}
}

// exported tells whether a provider is for other namespaces than its own.
func exported(s *v1beta1.LLMProviderSpec, own string) bool {
	return slices.ContainsFunc(s.ExportTo, func(to v1beta1.ExportTarget) bool { return to != v1beta1.ExportToOwn && string(to) != own })
}

func uidsOf(uids []int64) []uint32 {
	if len(uids) == 0 {
		return nil
	}
	all := make([]uint32, len(uids))
	for i, uid := range uids {
		all[i] = uint32(uid)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
