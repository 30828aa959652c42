package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// reviewTime is how long the API server may take to say what the author of a write may read, all questions together. It waits for 5
// seconds itself (config/webhook/admission.yaml).
const reviewTime = 3 * time.Second

// permits asks whether an author may read what a write needs.
type permits struct {
	// review asks the API server one question.
	review   func(context.Context, *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error)
	patience time.Duration
}

func newPermits(config *rest.Config) (*permits, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // a write waits for the answer; the API server bounds it where it has to
	client, err := authorizationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("rights: %w", err)
	}
	return &permits{patience: reviewTime, review: func(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
		return client.SubjectAccessReviews().Create(ctx, r, metav1.CreateOptions{})
	}}, nil
}

// missing gives what the author of a write to object may not read of what it needs. An error says that it is not known.
func (p *permits) missing(ctx context.Context, author *authenticationv1.UserInfo, object routing.Ref, needs []need) ([]routing.Problem, error) {
	if len(needs) == 0 {
		return nil, nil
	}
	ctx, done := context.WithTimeout(ctx, p.patience)
	defer done()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	allowed := make([]bool, len(needs))
	failed := inParallel(len(needs), func(i int) error {
		err := ctx.Err()
		if err == nil {
			allowed[i], err = p.allowed(ctx, author, object, needs[i])
		}
		if err != nil {
			stop(err) // there is no answer any more, whatever the others say
		}
		return err
	})
	if failed != nil {
		return nil, fmt.Errorf("the API server does not say what %s may read, so try again: %w", author.Username, context.Cause(ctx))
	}
	var denied []routing.Problem
	for i, n := range needs {
		if !allowed[i] {
			denied = append(denied, n.denied(author.Username, object))
		}
	}
	return denied, nil
}

// allowed asks about one need.
func (p *permits) allowed(ctx context.Context, author *authenticationv1.UserInfo, object routing.Ref, n need) (bool, error) {
	about := &authorizationv1.ResourceAttributes{Verb: "get", Version: "v1", Resource: "secrets", Namespace: object.Namespace, Name: n.secret}
	if n.secret == "" {
		about.Group, about.Version, about.Resource, about.Name = v1beta1.GroupVersion.Group, v1beta1.GroupVersion.Version, providerResource.Resource, object.Name
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range author.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := p.review(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: author.Username, UID: author.UID, Groups: author.Groups, Extra: extra, ResourceAttributes: about,
	}})
	if err != nil {
		return false, err
	}
	if s := &review.Status; !s.Allowed && !s.Denied && s.EvaluationError != "" { // an authorizer of the cluster is away
		return false, errors.New(s.EvaluationError)
	}
	return review.Status.Allowed && !review.Status.Denied, nil
}

// denied says what an author may not do, and who may.
func (n need) denied(author string, object routing.Ref) routing.Problem {
	key, place := "Secret "+object.Namespace+"/"+n.secret, "it"
	if n.secret == "" {
		key, place = "the key that is written here", "this LLMProvider"
	}
	return routing.Problem{Object: object, Field: n.field, Severity: routing.Invalid, Code: routing.KeyNotPermitted, Message: fmt.Sprintf(
		"%s is not for %s to read, and %s: somebody who may read it has to apply this, or give %s the right to get %s", key, author, n.why, author, place)}
}
