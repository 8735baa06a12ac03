//! Calls whose answers come in pages: all of them are fetched, as aws does, unless flags say how many.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{ArgMatches, Args, FromArgMatches as _};
use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{Call, names};
use crate::context::Context;
use crate::error::CliError;

/// How many items of a page another command has printed; botocore's name.
const OFFSET: &str = "boto_truncate_amount";

/// How a call's answers come in pages.
pub(super) struct Paged {
    /// The list that is in pieces.
    list: String,
    members: &'static Members,
    /// Members of the first answer that stay.
    beside: Vec<String>,
}

/// The members that say which page is wanted, and which one is next.
pub(super) struct Members {
    size: &'static str,
    token: &'static str,
    /// Fields of the request that have no flags of their own, since aws's flags for pages are called so.
    pub(super) replaces: &'static [&'static str],
    /// Flags that turn pages off.
    pub(super) hides: &'static [&'static str],
}

/// EC2's, and IAM's.
static STYLES: [Members; 2] = [
    Members {
        size: "MaxResults",
        token: "NextToken",
        replaces: &[],
        hides: &["max-results", "next-token"],
    },
    Members {
        size: "MaxItems",
        token: "Marker",
        replaces: &["max_items"],
        hides: &["marker"],
    },
];

impl Paged {
    /// `None`: the answers do not come in pages of one list.
    pub(super) fn of(request: &MessageDescriptor, answer: &MessageDescriptor) -> Option<Self> {
        let has = |of: &MessageDescriptor, member| of.fields().any(|field| names::member(&field) == member);
        let members = STYLES.iter().find(|members| {
            has(request, members.size) && has(request, members.token) && has(answer, members.token)
        })?;
        let mut lists = answer.fields().filter(|field| field.is_list());
        let (Some(list), None) = (lists.next(), lists.next()) else {
            return None;
        };
        let beside = answer
            .fields()
            .filter(|field| matches!(field.kind(), Kind::Message(_)) && !field.is_list());
        Some(Self {
            list: names::member(&list),
            members,
            beside: beside.map(|field| names::member(&field)).collect(),
        })
    }

    pub(super) fn members(&self) -> &'static Members {
        self.members
    }
}

#[derive(Args)]
#[command(next_help_heading = "Pages")]
pub(super) struct Paging {
    /// Prints so many items at most, and a NextToken if there are more.
    #[arg(long, value_name = "NUMBER")]
    max_items: Option<u32>,
    /// How many items each call asks for.
    #[arg(long, value_name = "NUMBER")]
    page_size: Option<u32>,
    /// Goes on where a command with --max-items ended: its NextToken.
    #[arg(long, value_name = "TOKEN")]
    starting_token: Option<String>,
}

/// The pages of a list.
pub(super) struct Pages<'a> {
    paged: &'a Paged,
    paging: Paging,
}

impl<'a> Pages<'a> {
    /// `None` if one page is asked for.
    ///
    /// # Errors
    /// A page is asked for in two ways.
    pub(super) fn asked(
        paged: &'a Paged,
        matches: &ArgMatches,
        request: &Map<String, Value>,
        context: &Context,
    ) -> Result<Option<Self>, CliError> {
        let paging = Paging::from_arg_matches(matches)?;
        let members = paged.members;
        let is_manual = request.contains_key(members.token) || request.contains_key(members.size);
        if context.paginate && !is_manual {
            return Ok(Some(Self { paged, paging }));
        }
        let given = [
            paging.starting_token.map(|_| "--starting-token"),
            paging.page_size.map(|_| "--page-size"),
            paging.max_items.map(|_| "--max-items"),
        ];
        let given: Vec<&str> = given.into_iter().flatten().collect();
        match given.is_empty() {
            true => Ok(None),
            false => Err(CliError::Failed(format!(
                "Error during pagination: Cannot specify --no-paginate along with pagination arguments: {}",
                given.join(", ")
            ))),
        }
    }

    /// Fetches the pages, and prints them.
    pub(super) async fn print(
        self,
        call: &'static Call,
        request: Map<String, Value>,
        context: &Context,
    ) -> Result<(), CliError> {
        let list = self.paged.list.as_str();
        let (pages, beside, token) = self.fetch(call, request, context).await?;
        let print = |answer: Value| context.printer.print(&call.operation, &answer);
        if context.printer.prints_pages() {
            // What is beside the list is printed once.
            let mut beside = beside;
            pages.into_iter().try_for_each(|items| {
                let mut page = Value::Object(std::mem::take(&mut beside));
                page[list] = items.into();
                print(page)
            })?;
            return token.map_or(Ok(()), |token| {
                print(json!({ "NextToken": { "NextToken": token } }))
            });
        }
        let mut answer = Value::Object(beside);
        answer[list] = pages.concat().into();
        if let Some(token) = token {
            answer["NextToken"] = token.into();
        }
        print(answer)
    }

    /// The items by page, what is beside them, and the token for those that are left.
    async fn fetch(
        self,
        call: &'static Call,
        mut request: Map<String, Value>,
        context: &Context,
    ) -> Result<(Vec<Vec<Value>>, Map<String, Value>, Option<String>), CliError> {
        let members = self.paged.members;
        let (mut token, mut offset) = self
            .paging
            .starting_token
            .map_or((None, 0), |token| decode(members.token, token));
        let mut left = self.paging.max_items.map_or(usize::MAX, |items| items as usize);
        let mut pages = Vec::new();
        let mut beside = Map::new();
        if let Some(size) = self.paging.page_size {
            request.insert(members.size.to_owned(), size.into());
        }
        loop {
            if let Some(token) = &token {
                request.insert(members.token.to_owned(), token.as_str().into());
            }
            let mut answer = call.call(request.clone(), context).await?;
            let next = answer[members.token]
                .as_str()
                .filter(|next| !next.is_empty())
                .map(str::to_owned);
            if let (true, Value::Object(answer)) = (pages.is_empty(), &answer) {
                let kept = self
                    .paged
                    .beside
                    .iter()
                    .filter_map(|name| answer.get_key_value(name));
                beside.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
            }
            let items = answer[&self.paged.list]
                .as_array_mut()
                .map(std::mem::take)
                .unwrap_or_default();
            let mut items: Vec<Value> = items.into_iter().skip(offset).collect();
            if items.len() > left {
                items.truncate(left);
                pages.push(items);
                let token = encode(members.token, token, Some(offset + left));
                return Ok((pages, beside, Some(token)));
            }
            left -= items.len();
            pages.push(items);
            match next {
                None => return Ok((pages, beside, None)),
                Some(next) if left == 0 => {
                    return Ok((pages, beside, Some(encode(members.token, Some(next), None))));
                }
                Some(next) if token.as_ref() == Some(&next) => {
                    let problem = format!("The same next token was received twice: {next}");
                    return Err(CliError::Failed(format!("Error during pagination: {problem}")));
                }
                next => (token, offset) = (next, 0),
            }
        }
    }
}

/// A token as botocore writes it: that of the service, and how many items of its page are printed already.
fn encode(member: &str, token: Option<String>, offset: Option<usize>) -> String {
    let offset = offset
        .map(|offset| format!(", \"{OFFSET}\": {offset}"))
        .unwrap_or_default();
    BASE64_STANDARD.encode(format!("{{\"{member}\": {}{offset}}}", json!(token)))
}

/// Other tokens are the service's own.
fn decode(member: &str, token: String) -> (Option<String>, usize) {
    let bytes = BASE64_STANDARD.decode(&token).unwrap_or_default();
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => {
            let offset = members.get(OFFSET).and_then(Value::as_u64).unwrap_or_default();
            let token = members.get(member).and_then(Value::as_str);
            (
                token.map(str::to_owned),
                usize::try_from(offset).unwrap_or(usize::MAX),
            )
        }
        _ => (Some(token), 0),
    }
}
