package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/amp/types"

	"github.com/ampbridge/ampbridge/cmd/internal/awsclient"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
)

const (
	// A workspace usually becomes active within seconds.
	activePause   = time.Second
	activeTimeout = 5 * time.Minute
)

// workspaces holds clients of AMP's control plane, by region.
type workspaces map[string]*amp.Client

func (w workspaces) in(ctx context.Context, region string) (*amp.Client, error) {
	if w[region] == nil {
		cfg, err := awsclient.Config(ctx, config.WithRegion(region))
		if err != nil {
			return nil, err
		}
		w[region] = amp.NewFromConfig(cfg)
	}
	return w[region], nil
}

// observe returns the workspaces that the policy names. For new ones it returns all workspaces of
// their region, because an earlier run may have created one, which its tags show.
func (w workspaces) observe(ctx context.Context, c bootstrap.Central) (list []bootstrap.FoundWorkspace, err error) {
	listed := map[string]bool{}
	for _, wanted := range c.Workspaces {
		if wanted.New {
			listed[wanted.ARN.Region] = true
		}
	}
	described := map[policy.ARN]bool{} // several destinations can use one workspace
	for _, wanted := range c.Workspaces {
		if !wanted.New && !listed[wanted.ARN.Region] && !described[wanted.ARN.ARN] {
			described[wanted.ARN.ARN] = true
			found, err := w.describe(ctx, wanted.ARN)
			if err != nil {
				return nil, err
			}
			if !found.ARN.IsZero() {
				list = append(list, found)
			}
		}
	}
	for _, region := range slices.Sorted(maps.Keys(listed)) {
		client, err := w.in(ctx, region)
		if err != nil {
			return nil, err
		}
		pages := amp.NewListWorkspacesPaginator(client, &amp.ListWorkspacesInput{})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, awsclient.Short(err)
			}
			for _, s := range page.Workspaces {
				if s.Status != nil && s.Status.StatusCode == types.WorkspaceStatusCodeDeleting {
					continue
				}
				found, err := parseWorkspace(s.Arn, s.Alias, s.Status, s.Tags)
				if err != nil {
					return nil, err
				}
				list = append(list, found)
			}
		}
	}
	return list, nil
}

// describe returns zero if there is no such workspace.
func (w workspaces) describe(ctx context.Context, arn policy.Workspace) (bootstrap.FoundWorkspace, error) {
	client, err := w.in(ctx, arn.Region)
	if err != nil {
		return bootstrap.FoundWorkspace{}, err
	}
	out, err := client.DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: aws.String(arn.ID())})
	if _, ok := errors.AsType[*types.ResourceNotFoundException](err); ok {
		return bootstrap.FoundWorkspace{}, nil
	}
	if err != nil {
		return bootstrap.FoundWorkspace{}, awsclient.Short(err)
	}
	found, err := parseWorkspace(out.Workspace.Arn, out.Workspace.Alias, out.Workspace.Status, out.Workspace.Tags)
	found.Endpoint = aws.ToString(out.Workspace.PrometheusEndpoint)
	return found, err
}

func parseWorkspace(arn, alias *string, status *types.WorkspaceStatus, tags map[string]string) (bootstrap.FoundWorkspace, error) {
	found := bootstrap.FoundWorkspace{Alias: aws.ToString(alias), Tags: tags}
	if status != nil {
		found.Status = string(status.StatusCode)
	}
	return found, found.ARN.UnmarshalText([]byte(aws.ToString(arn)))
}

// create creates a workspace and waits until it is active. If AWS's answer is lost, the
// next run creates no second workspace, because the same change has the same token.
func (w workspaces) create(ctx context.Context, c plan.Change) (bootstrap.FoundWorkspace, error) {
	client, err := w.in(ctx, c.Resource.Region)
	if err != nil {
		return bootstrap.FoundWorkspace{}, err
	}
	made, err := client.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{
		Alias: &c.Description, Tags: c.Tags, ClientToken: aws.String(bootstrap.ClientToken(c.Owner, c.Resource.Region, c.Destination)),
	})
	if err != nil {
		return bootstrap.FoundWorkspace{}, awsclient.Short(err)
	}
	found, err := parseWorkspace(made.Arn, &c.Description, made.Status, c.Tags)
	if err != nil {
		return found, err
	}
	for deadline := time.Now().Add(activeTimeout); ; {
		// A new workspace may not be visible yet.
		switch now, err := w.describe(ctx, found.ARN); {
		case err != nil:
			return found, err
		case now.Status == string(types.WorkspaceStatusCodeActive):
			return now, nil
		case now.Status == string(types.WorkspaceStatusCodeCreationFailed):
			return now, fmt.Errorf("%s: its creation failed: delete it, and run bootstrap again", found.ARN)
		case time.Now().After(deadline):
			return now, fmt.Errorf("%s: it is not active after %s", found.ARN, activeTimeout)
		}
		select {
		case <-ctx.Done():
			return found, ctx.Err()
		case <-time.After(activePause):
		}
	}
}

// tag sets tags on a workspace.
func (w workspaces) tag(ctx context.Context, c plan.Change) error {
	client, err := w.in(ctx, c.Resource.Region)
	if err != nil {
		return err
	}
	_, err = client.TagResource(ctx, &amp.TagResourceInput{ResourceArn: aws.String(c.Resource.String()), Tags: c.Tags})
	return awsclient.Short(err)
}
