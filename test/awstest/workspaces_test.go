package awstest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/amp"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// A workspace is CREATING, ACTIVE, DELETING and gone, by the double's clock.
func TestWorkspaceStates(t *testing.T) {
	cloud := awstest.Start(t, awstest.Options{})
	account := cloud.Account("111122223333")
	client := amp.NewFromConfig(cloud.Config(account.AdminCredentials(), "eu-west-1"))
	cloud.SetWorkspaceDelay(time.Hour)
	made, err := client.CreateWorkspace(t.Context(), &amp.CreateWorkspaceInput{Alias: new("a"), ClientToken: new("one")})
	if err != nil || made.Status.StatusCode != "CREATING" {
		t.Fatalf("%+v, %v", made, err)
	}
	state := func() string {
		out, err := client.DescribeWorkspace(t.Context(), &amp.DescribeWorkspaceInput{WorkspaceId: made.WorkspaceId})
		if err != nil {
			return err.Error()
		}
		return string(out.Workspace.Status.StatusCode)
	}
	remove := func() error {
		_, err := client.DeleteWorkspace(t.Context(), &amp.DeleteWorkspaceInput{WorkspaceId: made.WorkspaceId})
		return err
	}
	if err := remove(); state() != "CREATING" || err == nil || !strings.Contains(err.Error(), "ConflictException") {
		t.Errorf("%s: deleted: %v", state(), err)
	}
	cloud.Advance(time.Hour + time.Minute)
	client = amp.NewFromConfig(cloud.Config(account.AdminCredentials(), "eu-west-1"))
	if got := state(); got != "ACTIVE" {
		t.Fatal(got)
	}
	if err := remove(); err != nil || state() != "DELETING" {
		t.Errorf("%v, %s", err, state())
	}
	list, err := client.ListWorkspaces(t.Context(), &amp.ListWorkspacesInput{})
	if err != nil || len(list.Workspaces) != 1 || list.Workspaces[0].Status.StatusCode != "DELETING" {
		t.Errorf("%+v, %v", list, err)
	}
	cloud.Advance(time.Hour + time.Minute)
	if got := state(); !strings.Contains(got, "ResourceNotFoundException") {
		t.Error(got)
	}
}

func TestWorkspaceQuotaPagesAndTags(t *testing.T) {
	cloud := awstest.Start(t, awstest.Options{})
	account := cloud.Account("111122223333")
	client := amp.NewFromConfig(cloud.Config(account.AdminCredentials(), "eu-west-1"))
	account.SetQuotas(func(q *awstest.Quotas) { q.Workspaces = 7 })
	var arn *string
	for i := range 8 {
		out, err := client.CreateWorkspace(t.Context(), &amp.CreateWorkspaceInput{
			Alias: new(fmt.Sprint("w", i)), Tags: map[string]string{"a": "1"}, ClientToken: new(fmt.Sprint("token", i)),
		})
		if full := err != nil && strings.Contains(err.Error(), "ServiceQuotaExceededException"); full != (i == 7) {
			t.Fatalf("workspace %d: %v", i, err)
		}
		if err == nil {
			arn = out.Arn
		}
	}
	// The quota is a region's.
	far := amp.NewFromConfig(cloud.Config(account.AdminCredentials(), "us-east-1"))
	if _, err := far.CreateWorkspace(t.Context(), &amp.CreateWorkspaceInput{}); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	pages := amp.NewListWorkspacesPaginator(client, &amp.ListWorkspacesInput{MaxResults: new(int32(3))})
	count := 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil || len(page.Workspaces) > 3 {
			t.Fatalf("%d, %v", len(page.Workspaces), err)
		}
		for _, w := range page.Workspaces {
			seen[*w.Arn] = true
		}
		count++
	}
	if len(seen) != 7 || count != 3 {
		t.Errorf("%d workspaces on %d pages", len(seen), count)
	}
	if _, err := client.TagResource(t.Context(), &amp.TagResourceInput{
		ResourceArn: arn, Tags: map[string]string{"b": "2"},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.UntagResource(t.Context(), &amp.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	tags, err := client.ListTagsForResource(t.Context(), &amp.ListTagsForResourceInput{ResourceArn: arn})
	if err != nil || len(tags.Tags) != 1 || tags.Tags["b"] != "2" {
		t.Errorf("%v, %v", tags, err)
	}
	// Who makes a workspace with tags needs aps:TagResource; who tags one, on that one.
	keys, err := account.PutUser("maker",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:CreateWorkspace","Resource":"*"}}`)
	testkit.Must(t, err)
	account.SetQuotas(func(q *awstest.Quotas) { q.Workspaces = 25 })
	maker := amp.NewFromConfig(cloud.Config(keys, "eu-west-1"))
	if _, err := maker.CreateWorkspace(t.Context(), &amp.CreateWorkspaceInput{}); err != nil {
		t.Error(err)
	}
	for what, call := range map[string]func() error{
		"made with tags": func() error {
			_, err := maker.CreateWorkspace(t.Context(), &amp.CreateWorkspaceInput{Tags: map[string]string{"a": "1"}})
			return err
		},
		"tagged": func() error {
			_, err := maker.TagResource(t.Context(), &amp.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"a": "1"}})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "is not authorized to perform: aps:TagResource") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
