#!/usr/bin/env bash

# Written by ampbridge bootstrap -o aws-cli for cluster dev, account 111122223333.
# It can be run again: it creates what is missing, and changes nothing that others created.
set -euo pipefail
if [ "$(aws sts get-caller-identity --query Account --output text)" != '111122223333' ]; then
  echo 'these commands are for account 111122223333: use credentials of that account' >&2
  exit 1
fi
owner='96c48883e1dae763b4a427705e396c26'

refuse() {
  echo "$1: nothing was changed; ampbridge bootstrap shows what to do" >&2
  exit 1
}
# own NAME OWNER: fails if the resource does not exist, and stops the script if it belongs to others.
own() {
  case "$2" in
    "$owner") return 0 ;;
    '') return 1 ;;
  esac
  refuse "$1 exists and was not created for this cluster (tag ampbridge.io/owner)"
}
# read_owner QUERY COMMAND...: prints the owner's tag, None without such a tag, or nothing without such a resource.
read_owner() {
  local query="$1[?Key=='ampbridge.io/owner'].Value | [0]" answer
  shift
  if "$@" --query "$query" --output text 2>/dev/null; then return; fi
  if answer="$("$@" --query "$query" --output text 2>&1)" || [[ "$answer" != *NoSuchEntity* ]]; then
    echo "$answer" >&2
    return 1
  fi
}

# Read first: if something is refused, nothing is changed.
found="$(aws amp list-workspaces --region 'eu-west-1' --output text --query 'workspaces[?tags."ampbridge.io/owner"=='\''96c48883e1dae763b4a427705e396c26'\'' && tags."ampbridge.io/destination"=='\''central'\'' && status.statusCode!='\''DELETING'\''].arn')"
list=($found)
if [ "${#list[@]}" -gt 1 ]; then refuse "destination central has several workspaces: ${list[*]}"; fi
workspace_central="${list[0]-}"
provider="$(read_owner Tags aws iam get-open-id-connect-provider --open-id-connect-provider-arn 'arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF')"
if own 'arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF' "$provider"; then provider=exists; else provider=; fi
boundary="$(read_owner Policy.Tags aws iam get-policy --policy-arn 'arn:aws:iam::111122223333:policy/ampbridge/boundary')"
if own 'arn:aws:iam::111122223333:policy/ampbridge/boundary' "$boundary"; then boundary=exists; else boundary=; fi
role="$(read_owner Role.Tags aws iam get-role --role-name 'ampbridge-sync.dev')"
if own 'arn:aws:iam::111122223333:role/ampbridge-sync.dev' "$role"; then role=exists; else role=; fi

# The workspace of destination central: write its ARN into the policy.
if [ -z "$workspace_central" ]; then
workspace_central="$(aws amp create-workspace \
  --region 'eu-west-1' \
  --cli-input-json '{"alias":"central","clientToken":"2ec030066fad9d92a5fbac0a3321dd19a9368f30e83d4725c1346644958b19a6","tags":{"ampbridge.io/cluster":"dev","ampbridge.io/destination":"central","ampbridge.io/managed-by":"ampbridge","ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26","team":"a b@c=d"}}' \
  --query arn --output text)"
else
aws amp tag-resource \
  --region 'eu-west-1' \
  --resource-arn "$workspace_central" \
  --tags '{"team":"a b@c=d"}'
fi
aws amp wait workspace-active --region 'eu-west-1' --workspace-id "${workspace_central##*/}"
aws amp describe-workspace --region 'eu-west-1' --workspace-id "${workspace_central##*/}" --query 'workspace.[arn,workspaceId,prometheusEndpoint]' --output text

# The cluster's issuer: AWS accepts its tokens for these audiences. AWS needs no thumbprint, but a CLI older than 2.17 does (it
# exits with 252). So the CLI gets a thumbprint of no certificate, which AWS ignores if the issuer's CA is a public one.
create_provider() {
  aws iam create-open-id-connect-provider \
  --url 'https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF' \
  --client-id-list 'api://AzureADTokenExchange' 'sts.amazonaws.com' \
  --tags '[{"Key":"ampbridge.io/cluster","Value":"dev"},{"Key":"ampbridge.io/managed-by","Value":"ampbridge"},{"Key":"ampbridge.io/owner","Value":"96c48883e1dae763b4a427705e396c26"},{"Key":"team","Value":"a b@c=d"}]' "$@"
}
if [ -z "$provider" ]; then
create_provider || { [ $? = 252 ] && create_provider --thumbprint-list 0000000000000000000000000000000000000000; }
else
aws iam add-client-id-to-open-id-connect-provider \
  --open-id-connect-provider-arn 'arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF' \
  --client-id 'api://AzureADTokenExchange'
aws iam add-client-id-to-open-id-connect-provider \
  --open-id-connect-provider-arn 'arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF' \
  --client-id 'sts.amazonaws.com'
aws iam tag-open-id-connect-provider --open-id-connect-provider-arn 'arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF' --tags '[{"Key":"team","Value":"a b@c=d"}]'
fi

# The upper limit for roles created by sync, whatever their own documents allow.
document='{"Version":"2012-10-17","Statement":[{"Sid":"Write","Effect":"Allow","Action":"aps:RemoteWrite","Resource":["arn:aws:aps:eu-central-1:111122223333:workspace/ws-0002","'"$workspace_central"'"]}]}'
if [ -z "$boundary" ]; then
aws iam create-policy \
  --policy-name 'boundary' \
  --path '/ampbridge/' \
  --policy-document "$document" \
  --tags '[{"Key":"ampbridge.io/cluster","Value":"dev"},{"Key":"ampbridge.io/managed-by","Value":"ampbridge"},{"Key":"ampbridge.io/owner","Value":"96c48883e1dae763b4a427705e396c26"},{"Key":"team","Value":"a b@c=d"}]'
else
aws iam tag-policy --policy-arn 'arn:aws:iam::111122223333:policy/ampbridge/boundary' --tags '[{"Key":"team","Value":"a b@c=d"}]'
version="$(aws iam get-policy --policy-arn 'arn:aws:iam::111122223333:policy/ampbridge/boundary' --query Policy.DefaultVersionId --output text)"
current="$(aws iam get-policy-version --policy-arn 'arn:aws:iam::111122223333:policy/ampbridge/boundary' --version-id "$version" --output text --query 'to_array(PolicyVersion.Document.Statement)[].[Effect,Action,Resource][][]' | tr '\t' '\n' | LC_ALL=C sort)"
wanted="$(printf '%s\n' 'Allow' 'aps:RemoteWrite' 'arn:aws:aps:eu-central-1:111122223333:workspace/ws-0002' "$workspace_central" | LC_ALL=C sort)"
if [ "$current" != "$wanted" ]; then
old="$(aws iam list-policy-versions --policy-arn 'arn:aws:iam::111122223333:policy/ampbridge/boundary' --output text --query 'sort_by(Versions,&CreateDate)[?!IsDefaultVersion].VersionId | [3]')"
if [ "$old" != None ]; then
old="$(aws iam list-policy-versions --policy-arn 'arn:aws:iam::111122223333:policy/ampbridge/boundary' --output text --query 'sort_by(Versions,&CreateDate)[?!IsDefaultVersion].VersionId | [0]')"
aws iam delete-policy-version --policy-arn 'arn:aws:iam::111122223333:policy/ampbridge/boundary' --version-id "$old"
fi
aws iam create-policy-version --set-as-default --policy-arn 'arn:aws:iam::111122223333:policy/ampbridge/boundary' --policy-document "$document"
fi
fi

# The role of sync: only its own service account, or its role in another account, may assume it.
if [ -z "$role" ]; then
aws iam create-role \
  --role-name 'ampbridge-sync.dev' \
  --path '/' \
  --description 'Sync of ampbridge in cluster dev' \
  --assume-role-policy-document '{"Version":"2012-10-17","Statement":[{"Sid":"Token","Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF:aud":"sts.amazonaws.com","oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF:sub":"system:serviceaccount:ampbridge-system:ampbridge-sync"}}}]}' \
  --tags '[{"Key":"ampbridge.io/cluster","Value":"dev"},{"Key":"ampbridge.io/managed-by","Value":"ampbridge"},{"Key":"ampbridge.io/owner","Value":"96c48883e1dae763b4a427705e396c26"},{"Key":"team","Value":"a b@c=d"}]'
else
echo 'the trust document of arn:aws:iam::111122223333:role/ampbridge-sync.dev stays as it is; a script with --prune-trust replaces it' >&2
aws iam tag-role --role-name 'ampbridge-sync.dev' --tags '[{"Key":"team","Value":"a b@c=d"}]'
fi
aws iam put-role-policy \
  --role-name 'ampbridge-sync.dev' \
  --policy-name 'ampbridge' \
  --policy-document '{"Version":"2012-10-17","Statement":[{"Sid":"List","Effect":"Allow","Action":["iam:GetAccountSummary","iam:ListOpenIDConnectProviders","iam:ListRoles"],"Resource":"*"},{"Sid":"ReadWorkspaces","Effect":"Allow","Action":"aps:DescribeWorkspace","Resource":"arn:aws:aps:*:111122223333:workspace/*"},{"Sid":"ReadProvider","Effect":"Allow","Action":"iam:GetOpenIDConnectProvider","Resource":"arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"},{"Sid":"ReadRoles","Effect":"Allow","Action":["iam:GetRole","iam:GetRolePolicy","iam:ListAttachedRolePolicies","iam:ListRolePolicies"],"Resource":["arn:aws:iam::111122223333:role/ampbridge/dev/*","arn:aws:iam::111122223333:role/ampbridge.dev.*","arn:aws:iam::111122223333:role/*/ampbridge.dev.*"]},{"Sid":"MakeProvider","Effect":"Allow","Action":["iam:CreateOpenIDConnectProvider","iam:TagOpenIDConnectProvider"],"Resource":"arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF","Condition":{"StringEquals":{"aws:RequestTag/ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26"},"StringEqualsIfExists":{"aws:ResourceTag/ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26"}}},{"Sid":"ChangeProvider","Effect":"Allow","Action":["iam:AddClientIDToOpenIDConnectProvider","iam:UpdateOpenIDConnectProviderThumbprint"],"Resource":"arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF","Condition":{"StringEquals":{"aws:ResourceTag/ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26"}}},{"Sid":"MakeRoles","Effect":"Allow","Action":"iam:CreateRole","Resource":"arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.*","Condition":{"StringEquals":{"aws:RequestTag/ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26","iam:PermissionsBoundary":"arn:aws:iam::111122223333:policy/ampbridge/boundary"}}},{"Sid":"TagRoles","Effect":"Allow","Action":"iam:TagRole","Resource":"arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.*","Condition":{"StringEquals":{"aws:RequestTag/ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26"},"StringEqualsIfExists":{"aws:ResourceTag/ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26"}}},{"Sid":"ChangeRoles","Effect":"Allow","Action":["iam:UpdateAssumeRolePolicy","iam:UpdateRole"],"Resource":"arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.*","Condition":{"StringEquals":{"aws:ResourceTag/ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26"}}},{"Sid":"PermitRoles","Effect":"Allow","Action":["iam:PutRolePermissionsBoundary","iam:PutRolePolicy"],"Resource":"arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.*","Condition":{"StringEquals":{"aws:ResourceTag/ampbridge.io/owner":"96c48883e1dae763b4a427705e396c26","iam:PermissionsBoundary":"arn:aws:iam::111122223333:policy/ampbridge/boundary"}}},{"Sid":"NeverUnbounded","Effect":"Deny","Action":["iam:CreateRole","iam:PutRolePermissionsBoundary","iam:PutRolePolicy"],"Resource":"*","Condition":{"StringNotEquals":{"iam:PermissionsBoundary":"arn:aws:iam::111122223333:policy/ampbridge/boundary"}}},{"Sid":"NeverWider","Effect":"Deny","Action":["iam:Attach*","iam:CreateAccessKey","iam:CreateLoginProfile","iam:CreatePolicy*","iam:CreateUser","iam:DeleteRolePermissionsBoundary","iam:PassRole","iam:PutUser*","iam:SetDefaultPolicyVersion"],"Resource":"*"},{"Sid":"NeverOtherTags","Effect":"Deny","Action":["iam:CreateOpenIDConnectProvider","iam:CreateRole","iam:TagOpenIDConnectProvider","iam:TagRole"],"Resource":"*","Condition":{"ForAnyValue:StringNotEqualsIgnoreCase":{"aws:TagKeys":["ampbridge.io/owner","ampbridge.io/cluster","ampbridge.io/destination","ampbridge.io/managed-by","ampbridge.io/namespace","ampbridge.io/service-account"]}}},{"Sid":"NeverBelow","Effect":"Deny","NotAction":["iam:GetRole","iam:GetRolePolicy","iam:ListAttachedRolePolicies","iam:ListRolePolicies"],"Resource":"arn:aws:iam::111122223333:role/ampbridge/dev/*/*"},{"Sid":"Accounts","Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Resource":"arn:aws:iam::444455556666:role/team/sync-of-dev"}]}'
echo 'sync'\''s role: arn:aws:iam::111122223333:role/ampbridge-sync.dev'
