//! Calls whose answers come in pages: all of them are fetched, as aws does, unless flags say how many.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{ArgMatches, Args, FromArgMatches as _};
use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{Call, names};
use crate::context::Context;
use crate::error::CliError;
use crate::output::Pieces;

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

    /// What is printed of a page: its list, and of the first one what is beside it.
    fn kept(&self, mut page: Map<String, Value>, is_first: bool) -> Map<String, Value> {
        let beside = self.beside.iter().filter(|_| is_first);
        let names = std::iter::once(&self.list).chain(beside);
        names.filter_map(|name| page.remove_entry(name)).collect()
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

/// The pages of a list, one after the other.
pub(super) struct Pages<'a> {
    paged: &'a Paged,
    request: Map<String, Value>,
    /// How many items may still be printed.
    left: usize,
    /// Items at the beginning of the next page that are printed already.
    offset: usize,
    is_first: bool,
    is_last: bool,
    /// For what is left after the last page.
    resume: Option<String>,
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
            return Ok(Some(Self::new(paged, paging, request.clone())));
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

    fn new(paged: &'a Paged, paging: Paging, mut request: Map<String, Value>) -> Self {
        let members = paged.members;
        let start = paging.starting_token;
        let (token, offset) = start.map_or((None, 0), |token| decode(members.token, token));
        if let Some(size) = paging.page_size {
            request.insert(members.size.to_owned(), size.into());
        }
        if let Some(token) = token {
            request.insert(members.token.to_owned(), token.into());
        }
        Self {
            paged,
            request,
            left: paging.max_items.map_or(usize::MAX, |items| items as usize),
            offset,
            is_first: true,
            is_last: false,
            resume: None,
        }
    }

    /// Fetches the pages, and prints them.
    pub(super) async fn print(mut self, call: &'static Call, context: &Context) -> Result<(), CliError> {
        let print = |answer: Map<String, Value>| context.printer.print(&call.operation, &answer.into());
        let pieces = context.printer.pieces();
        let mut whole = Map::new();
        while !self.is_last {
            let is_first = std::mem::take(&mut self.is_first);
            let page = self.fetch(call, context).await?;
            match pieces {
                Pieces::Pages => print(page)?,
                Pieces::Lists => print(self.paged.kept(page, is_first))?,
                Pieces::Whole => {
                    for (name, value) in self.paged.kept(page, is_first) {
                        match (whole.get_mut(&name), value) {
                            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
                            (_, value) => drop(whole.insert(name, value)),
                        }
                    }
                }
            }
        }
        match (pieces, self.resume) {
            (Pieces::Pages, _) | (Pieces::Lists, None) => Ok(()),
            (Pieces::Lists, Some(token)) => print(Map::from_iter([(
                "NextToken".to_owned(),
                json!({ "NextToken": token }),
            )])),
            (Pieces::Whole, token) => {
                whole.extend(token.map(|token| ("NextToken".to_owned(), token.into())));
                print(whole)
            }
        }
    }

    /// The next page, without the items that are not to be printed.
    async fn fetch(
        &mut self,
        call: &'static Call,
        context: &Context,
    ) -> Result<Map<String, Value>, CliError> {
        let member = self.paged.members.token;
        let asked = self
            .request
            .get(member)
            .and_then(Value::as_str)
            .map(str::to_owned);
        let Value::Object(mut page) = call.call(self.request.clone(), context).await? else {
            return Err(CliError::Failed("The answer is no structure.".to_owned()));
        };
        let next = page.get(member).and_then(Value::as_str);
        let next = next.filter(|next| !next.is_empty()).map(str::to_owned);
        let offset = std::mem::take(&mut self.offset);
        let mut count = 0;
        if let Some(Value::Array(items)) = page.get_mut(&self.paged.list) {
            items.drain(..offset.min(items.len()));
            count = items.len();
            items.truncate(self.left);
        }
        self.is_last = true;
        if count > self.left {
            self.resume = Some(encode(member, asked, Some(offset + self.left)));
            return Ok(page);
        }
        self.left -= count;
        match next {
            None => {}
            Some(next) if self.left == 0 => self.resume = Some(encode(member, Some(next), None)),
            Some(next) if asked.as_ref() == Some(&next) => {
                let problem = format!("The same next token was received twice: {next}");
                return Err(CliError::Failed(format!("Error during pagination: {problem}")));
            }
            Some(next) => {
                self.request.insert(member.to_owned(), next.into());
                self.is_last = false;
            }
        }
        Ok(page)
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
