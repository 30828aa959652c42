package injector

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/apis/v1beta1"
)

// Namespace is what is to be known of a pod's namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Container is what the installation may choose of one of the injected containers.
type Container struct {
	Image      string
	PullPolicy corev1.PullPolicy // never empty; IfNotPresent if nothing is said
	Resources  corev1.ResourceRequirements
}

// Settings are what the installation may choose of an injected pod.
type Settings struct {
	Sidecar, Redirect Container
	// RedirectCapabilities are what the redirect container may do beyond a process without privileges. NET_ADMIN, the default, is
	// enough for nft; iptables-legacy needs NET_RAW too.
	RedirectCapabilities []corev1.Capability
	// Egress is the sidecar's part of the environment that leads it out of the network: HTTPS_PROXY and NO_PROXY.
	Egress []corev1.EnvVar
	// PullSecrets are appended to those of the pod: Secrets of the pod's own namespace.
	PullSecrets []corev1.LocalObjectReference
}

const (
	netAdmin corev1.Capability = "NET_ADMIN"
	netRaw   corev1.Capability = "NET_RAW"
)

// ParseSettings reads the PodTemplate that says what is injected. It returns all faults at once: what is missing, what is wrong, and
// every field that is set though it would have no effect. With a fault, the Settings are not to be used.
func ParseSettings(t *corev1.PodTemplate) (Settings, field.ErrorList) {
	s := Settings{RedirectCapabilities: []corev1.Capability{netAdmin}}
	template, spec := &t.Template, &t.Template.Spec
	at := field.NewPath("template")
	errs := withoutEffect(at.Child("metadata"), template.ObjectMeta)
	errs = append(errs, withoutEffect(at.Child("spec"), chosen(*spec))...)

	sidecar, more := only(at.Child("spec", "containers"), spec.Containers, v1beta1.SidecarContainer)
	errs = append(errs, more...)
	if sidecar.c != nil {
		errs = append(errs, sidecar.read(&s.Sidecar)...)
		if limit, limited := s.Sidecar.Resources.Limits[corev1.ResourceMemory]; limited && limit.Cmp(leastMemory) < 0 {
			errs = append(errs, field.Invalid(sidecar.at.Child("resources", "limits").Key("memory"), limit.String(), fmt.Sprintf("too little for the sidecar to start: write at least %s", &leastMemory)))
		}
		rest := chosenOf(*sidecar.c)
		s.Egress, more = egressOf(sidecar.at.Child("env"), rest.Env)
		rest.Env = nil
		errs = append(append(errs, more...), withoutEffect(sidecar.at, rest)...)
	}
	redirect, more := only(at.Child("spec", "initContainers"), spec.InitContainers, v1beta1.RedirectContainer)
	errs = append(errs, more...)
	if redirect.c != nil {
		errs = append(errs, redirect.read(&s.Redirect)...)
		rest := chosenOf(*redirect.c)
		if rest.SecurityContext != nil {
			capabilities, more := capabilitiesOf(redirect.at.Child("securityContext"), *rest.SecurityContext)
			errs = append(errs, more...)
			if len(capabilities) > 0 {
				s.RedirectCapabilities = capabilities
			}
			rest.SecurityContext = nil
		}
		errs = append(errs, withoutEffect(redirect.at, rest)...)
	}

	for i, secret := range spec.ImagePullSecrets {
		switch path := at.Child("spec", "imagePullSecrets").Index(i).Child("name"); {
		case secret.Name == "":
			errs = append(errs, field.Required(path, "the name of a Secret in the namespaces of the pods"))
		case isOurSecret(secret.Name):
			errs = append(errs, field.Forbidden(path, secret.Name+" is for the sidecar alone: name a Secret that is made for pulling images"))
		case !slices.Contains(s.PullSecrets, secret):
			s.PullSecrets = append(s.PullSecrets, secret)
		}
	}
	return s, errs
}

// A described container is one of the PodTemplate, and where it is.
type described struct {
	at *field.Path
	c  *corev1.Container
}

// only finds the one container that belongs into a list.
func only(at *field.Path, containers []corev1.Container, name string) (described, field.ErrorList) {
	var found described
	var errs field.ErrorList
	for i := range containers {
		switch c := &containers[i]; {
		case c.Name != name:
			errs = append(errs, field.NotSupported(at.Index(i).Child("name"), c.Name, []string{name}))
		case found.c != nil:
			errs = append(errs, field.Duplicate(at.Index(i).Child("name"), c.Name))
		default:
			found = described{at.Index(i), c}
		}
	}
	if found.c == nil {
		errs = append(errs, field.Required(at, "a container "+name+" with the image that is to be injected"))
	}
	return found, errs
}

func (d described) read(into *Container) field.ErrorList {
	var errs field.ErrorList
	c := d.c
	switch {
	case c.Image == "":
		errs = append(errs, field.Required(d.at.Child("image"), "the image that is to be injected"))
	case strings.ContainsFunc(c.Image, unicode.IsSpace):
		errs = append(errs, field.Invalid(d.at.Child("image"), c.Image, "an image has no white space in its name: remove it"))
	}
	policies := []corev1.PullPolicy{corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever}
	if c.ImagePullPolicy != "" && !slices.Contains(policies, c.ImagePullPolicy) {
		errs = append(errs, field.NotSupported(d.at.Child("imagePullPolicy"), c.ImagePullPolicy, policies))
	}
	*into = Container{Image: c.Image, PullPolicy: c.ImagePullPolicy, Resources: *c.Resources.DeepCopy()}
	if into.PullPolicy == "" {
		into.PullPolicy = corev1.PullIfNotPresent
	}
	return append(errs, badResources(d.at.Child("resources"), c.Resources)...)
}

func badResources(at *field.Path, r corev1.ResourceRequirements) field.ErrorList {
	var errs field.ErrorList
	if len(r.Claims) > 0 {
		errs = append(errs, field.Forbidden(at.Child("claims"), "it would have no effect: remove it"))
	}
	names := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	check := func(at *field.Path, list corev1.ResourceList) {
		for _, name := range sorted(list) {
			if q := list[name]; !slices.Contains(names, name) {
				errs = append(errs, field.NotSupported(at, name, names))
			} else if q.Sign() <= 0 {
				errs = append(errs, field.Invalid(at.Key(string(name)), q.String(), "write more than zero, or leave it out"))
			}
		}
	}
	check(at.Child("requests"), r.Requests)
	check(at.Child("limits"), r.Limits)
	for _, name := range sorted(r.Limits) {
		limit := r.Limits[name]
		if request, said := r.Requests[name]; said && request.Cmp(limit) > 0 {
			errs = append(errs, field.Invalid(at.Child("requests").Key(string(name)), request.String(), fmt.Sprintf("more than the limit %s: write at most that, or raise the limit", &limit)))
		}
	}
	return errs
}

func sorted(list corev1.ResourceList) []corev1.ResourceName {
	var names []corev1.ResourceName
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// capabilitiesOf reads what the redirect container may do; nothing else of its security context is a matter of taste.
func capabilitiesOf(at *field.Path, c corev1.SecurityContext) ([]corev1.Capability, field.ErrorList) {
	var errs field.ErrorList
	var all []corev1.Capability
	if c.Capabilities != nil {
		all = c.Capabilities.Add
		add := at.Child("capabilities", "add")
		for i, capability := range all {
			if capability != netAdmin && capability != netRaw {
				errs = append(errs, field.NotSupported(add.Index(i), capability, []corev1.Capability{netAdmin, netRaw}))
			}
		}
		if len(all) > 0 && !slices.Contains(all, netAdmin) {
			errs = append(errs, field.Required(add, "NET_ADMIN, without which no rule of iptables can be written"))
		}
		rest := *c.Capabilities
		rest.Add = nil
		errs = append(errs, withoutEffect(at.Child("capabilities"), rest)...)
		c.Capabilities = nil
	}
	return all, append(errs, withoutEffect(at, c)...)
}

// chosen leaves out of a spec what ParseSettings reads, and what the API server fills in by itself.
func chosen(spec corev1.PodSpec) corev1.PodSpec {
	spec.Containers, spec.InitContainers, spec.ImagePullSecrets = nil, nil, nil
	if spec.RestartPolicy == corev1.RestartPolicyAlways {
		spec.RestartPolicy = ""
	}
	if spec.DNSPolicy == corev1.DNSClusterFirst {
		spec.DNSPolicy = ""
	}
	if spec.SchedulerName == corev1.DefaultSchedulerName {
		spec.SchedulerName = ""
	}
	if s := spec.TerminationGracePeriodSeconds; s != nil && *s == corev1.DefaultTerminationGracePeriodSeconds {
		spec.TerminationGracePeriodSeconds = nil
	}
	if s := spec.SecurityContext; s != nil && reflect.ValueOf(*s).IsZero() {
		spec.SecurityContext = nil
	}
	return spec
}

func chosenOf(c corev1.Container) corev1.Container {
	c.Name, c.Image, c.ImagePullPolicy, c.Resources = "", "", "", corev1.ResourceRequirements{}
	if c.TerminationMessagePath == corev1.TerminationMessagePathDefault {
		c.TerminationMessagePath = ""
	}
	if c.TerminationMessagePolicy == corev1.TerminationMessageReadFile {
		c.TerminationMessagePolicy = ""
	}
	return c
}

// withoutEffect names every field of a struct that is set. Somebody who sets a field waits for its effect.
func withoutEffect(at *field.Path, of any) field.ErrorList {
	var errs field.ErrorList
	v := reflect.ValueOf(of)
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			errs = append(errs, field.Forbidden(at.Child(jsonName(v.Type().Field(i))), "it would have no effect: remove it"))
		}
	}
	return errs
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
