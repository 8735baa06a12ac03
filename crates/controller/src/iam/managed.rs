//! Managed policies that every account has, by AWS's names.
//! <https://docs.aws.amazon.com/aws-managed-policy/latest/reference/policy-list.html>

/// A policy that nobody changes.
#[derive(Debug)]
pub struct Managed {
    pub name: &'static str,
    pub id: &'static str,
    pub description: &'static str,
    pub document: &'static str,
}

impl Managed {
    pub fn arn(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

const PREFIX: &str = "arn:aws:iam::aws:policy/";

/// In the order of their names.
pub const ALL: &[Managed] = &[
    Managed {
        name: "AdministratorAccess",
        id: "ANPAIWMBCKSKIEE64ZLYK",
        description: "Provides full access to all services and resources.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    },
    Managed {
        name: "AmazonEC2FullAccess",
        id: "ANPAI3VAJF5ZCRZ7MCQE6",
        description: "Provides full access to instances, images, groups and networks.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:*","hearth:DescribeImageDisks","hearth:GetImageUpload","hearth:UploadImage","hearth:WatchInstances"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "AmazonEC2ReadOnlyAccess",
        id: "ANPAIGDT4SV4GSETWTBZK",
        description: "Provides read only access to instances, images, groups and networks.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:Describe*","ec2:GetSecurityGroupsForVpc","hearth:DescribeImageDisks","hearth:WatchInstances"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "IAMFullAccess",
        id: "ANPAI7XKCFMBPM3QQRRVQ",
        description: "Provides full access to users, groups, roles and policies.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:*","Resource":"*"}]}"#,
    },
    Managed {
        name: "IAMReadOnlyAccess",
        id: "ANPAJKSO7NDY4T57MWDSQ",
        description: "Provides read only access to users, groups, roles and policies.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:Get*","iam:List*"],"Resource":"*"}]}"#,
    },
    Managed {
        name: "PowerUserAccess",
        id: "ANPAJYRXTHIB4FOVS3ZXS",
        description: "Provides full access to all but users, groups, roles, policies, accounts and hosts.",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":["hearth:*Account*","hearth:*Host*","hearth:*JoinToken*","iam:*"],"Resource":"*"}]}"#,
    },
];

/// The policy of an ARN.
pub fn of_arn(arn: &str) -> Option<&'static Managed> {
    let name = arn.strip_prefix(PREFIX)?;
    ALL.iter().find(|policy| policy.name == name)
}
