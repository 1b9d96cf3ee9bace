# Written by ampbridge bootstrap -o terraform for cluster dev, account 444455556666: change the policy and write it again.
# Docs: docs/guides/bootstrap.md of ampbridge.

terraform {
  required_version = ">= 1.2"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.81"
    }
  }
}

data "aws_caller_identity" "current" {
  lifecycle {
    postcondition {
      condition     = self.account_id == "444455556666"
      error_message = "This configuration is for account 444455556666: use credentials of that account."
    }
  }
}

# The cluster's issuer: AWS accepts its tokens for these audiences.
resource "aws_iam_openid_connect_provider" "cluster" {
  url = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
  client_id_list = [
    "api://AzureADTokenExchange",
  ]
  tags = {
    "ampbridge.io/cluster"    = "dev"
    "ampbridge.io/managed-by" = "ampbridge"
    "ampbridge.io/owner"      = "96c48883e1dae763b4a427705e396c26"
    team                      = "a b@c=d"
  }
}

# The upper limit for roles created by sync, whatever their own documents allow.
resource "aws_iam_policy" "boundary" {
  name        = "boundary"
  path        = "/ampbridge/"
  description = "The most that roles made by ampbridge's sync can ever do"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Write"
        Effect = "Allow"
        Action = "aps:RemoteWrite"
        Resource = [
          "arn:aws:aps:eu-west-1:444455556666:workspace/ws-0003",
        ]
      },
    ]
  })
  tags = {
    "ampbridge.io/cluster"    = "dev"
    "ampbridge.io/managed-by" = "terraform"
    "ampbridge.io/owner"      = "96c48883e1dae763b4a427705e396c26"
    team                      = "a b@c=d"
  }
}

# The role of sync: only its own service account, or its role in another account, may assume it.
resource "aws_iam_role" "sync" {
  name        = "sync-of-dev"
  path        = "/team/"
  description = "Sync of ampbridge in cluster dev"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Home"
        Effect = "Allow"
        Principal = {
          AWS = "arn:aws:iam::111122223333:role/ampbridge-sync.dev"
        }
        Action = [
          "sts:AssumeRole",
          "sts:TagSession",
        ]
      },
    ]
  })
  tags = {
    "ampbridge.io/cluster"    = "dev"
    "ampbridge.io/managed-by" = "terraform"
    "ampbridge.io/owner"      = "96c48883e1dae763b4a427705e396c26"
    team                      = "a b@c=d"
  }
}

resource "aws_iam_role_policy" "sync" {
  name = "ampbridge"
  role = aws_iam_role.sync.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "List"
        Effect = "Allow"
        Action = [
          "iam:GetAccountSummary",
          "iam:ListOpenIDConnectProviders",
          "iam:ListRoles",
        ]
        Resource = [
          "*",
        ]
      },
      {
        Sid    = "ReadWorkspaces"
        Effect = "Allow"
        Action = "aps:DescribeWorkspace"
        Resource = [
          "arn:aws:aps:*:444455556666:workspace/*",
        ]
      },
      {
        Sid    = "ReadProvider"
        Effect = "Allow"
        Action = "iam:GetOpenIDConnectProvider"
        Resource = [
          aws_iam_openid_connect_provider.cluster.arn,
        ]
      },
      {
        Sid    = "ReadRoles"
        Effect = "Allow"
        Action = [
          "iam:GetRole",
          "iam:GetRolePolicy",
          "iam:ListAttachedRolePolicies",
          "iam:ListRolePolicies",
        ]
        Resource = [
          "arn:aws:iam::444455556666:role/ampbridge/dev/*",
          "arn:aws:iam::444455556666:role/ampbridge.dev.*",
          "arn:aws:iam::444455556666:role/*/ampbridge.dev.*",
        ]
      },
      {
        Sid    = "MakeProvider"
        Effect = "Allow"
        Action = [
          "iam:CreateOpenIDConnectProvider",
          "iam:TagOpenIDConnectProvider",
        ]
        Resource = [
          aws_iam_openid_connect_provider.cluster.arn,
        ]
        Condition = {
          StringEquals = {
            "aws:RequestTag/ampbridge.io/owner" = "96c48883e1dae763b4a427705e396c26"
          }
          StringEqualsIfExists = {
            "aws:ResourceTag/ampbridge.io/owner" = "96c48883e1dae763b4a427705e396c26"
          }
        }
      },
      {
        Sid    = "ChangeProvider"
        Effect = "Allow"
        Action = [
          "iam:AddClientIDToOpenIDConnectProvider",
          "iam:UpdateOpenIDConnectProviderThumbprint",
        ]
        Resource = [
          aws_iam_openid_connect_provider.cluster.arn,
        ]
        Condition = {
          StringEquals = {
            "aws:ResourceTag/ampbridge.io/owner" = "96c48883e1dae763b4a427705e396c26"
          }
        }
      },
      {
        Sid    = "MakeRoles"
        Effect = "Allow"
        Action = "iam:CreateRole"
        Resource = [
          "arn:aws:iam::444455556666:role/ampbridge/dev/ampbridge.dev.*",
        ]
        Condition = {
          StringEquals = {
            "aws:RequestTag/ampbridge.io/owner" = "96c48883e1dae763b4a427705e396c26"
            "iam:PermissionsBoundary"           = "arn:aws:iam::444455556666:policy/ampbridge/boundary"
          }
        }
      },
      {
        Sid    = "TagRoles"
        Effect = "Allow"
        Action = "iam:TagRole"
        Resource = [
          "arn:aws:iam::444455556666:role/ampbridge/dev/ampbridge.dev.*",
        ]
        Condition = {
          StringEquals = {
            "aws:RequestTag/ampbridge.io/owner" = "96c48883e1dae763b4a427705e396c26"
          }
          StringEqualsIfExists = {
            "aws:ResourceTag/ampbridge.io/owner" = "96c48883e1dae763b4a427705e396c26"
          }
        }
      },
      {
        Sid    = "ChangeRoles"
        Effect = "Allow"
        Action = [
          "iam:UpdateAssumeRolePolicy",
          "iam:UpdateRole",
        ]
        Resource = [
          "arn:aws:iam::444455556666:role/ampbridge/dev/ampbridge.dev.*",
        ]
        Condition = {
          StringEquals = {
            "aws:ResourceTag/ampbridge.io/owner" = "96c48883e1dae763b4a427705e396c26"
          }
        }
      },
      {
        Sid    = "PermitRoles"
        Effect = "Allow"
        Action = [
          "iam:PutRolePermissionsBoundary",
          "iam:PutRolePolicy",
        ]
        Resource = [
          "arn:aws:iam::444455556666:role/ampbridge/dev/ampbridge.dev.*",
        ]
        Condition = {
          StringEquals = {
            "aws:ResourceTag/ampbridge.io/owner" = "96c48883e1dae763b4a427705e396c26"
            "iam:PermissionsBoundary"            = "arn:aws:iam::444455556666:policy/ampbridge/boundary"
          }
        }
      },
      {
        Sid    = "NeverUnbounded"
        Effect = "Deny"
        Action = [
          "iam:CreateRole",
          "iam:PutRolePermissionsBoundary",
          "iam:PutRolePolicy",
        ]
        Resource = [
          "*",
        ]
        Condition = {
          StringNotEquals = {
            "iam:PermissionsBoundary" = "arn:aws:iam::444455556666:policy/ampbridge/boundary"
          }
        }
      },
      {
        Sid    = "NeverWider"
        Effect = "Deny"
        Action = [
          "iam:Attach*",
          "iam:CreateAccessKey",
          "iam:CreateLoginProfile",
          "iam:CreatePolicy*",
          "iam:CreateUser",
          "iam:DeleteRolePermissionsBoundary",
          "iam:PassRole",
          "iam:PutUser*",
          "iam:SetDefaultPolicyVersion",
        ]
        Resource = [
          "*",
        ]
      },
      {
        Sid    = "NeverOtherTags"
        Effect = "Deny"
        Action = [
          "iam:CreateOpenIDConnectProvider",
          "iam:CreateRole",
          "iam:TagOpenIDConnectProvider",
          "iam:TagRole",
        ]
        Resource = [
          "*",
        ]
        Condition = {
          "ForAnyValue:StringNotEqualsIgnoreCase" = {
            "aws:TagKeys" = [
              "ampbridge.io/owner",
              "ampbridge.io/cluster",
              "ampbridge.io/destination",
              "ampbridge.io/managed-by",
              "ampbridge.io/namespace",
              "ampbridge.io/service-account",
            ]
          }
        }
      },
      {
        Sid    = "NeverBelow"
        Effect = "Deny"
        NotAction = [
          "iam:GetRole",
          "iam:GetRolePolicy",
          "iam:ListAttachedRolePolicies",
          "iam:ListRolePolicies",
        ]
        Resource = [
          "arn:aws:iam::444455556666:role/ampbridge/dev/*/*",
        ]
      },
    ]
  })
}

output "sync_role_arn" {
  description = "The role that sync acts as in this account."
  value       = aws_iam_role.sync.arn
}
