//! [`Reader`]: an archive, taken piece by piece and believed byte by byte.

use muster_pki::{Certificate, Facts, Role, UnixTime};

use super::archive::{BLOCK_BYTES, END, header, name, padding, size};
use super::{Digests, INDEX_PATH, Index, Member, MemberHasher, PackError};
use crate::definition::Definition;
use crate::envelope::{self, Anchors, ContentType, ENVELOPE_BYTES_MAX, Verified};

/// Reads a pack from its first byte to its last. It holds the index and the definitions, of a resource only what hashes it.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    anchors: Anchors<'a>,
    facts: Facts<'a>,
    step: Step,
    /// What has come of a step that is judged as a whole.
    gathered: Vec<u8>,
    taken: u64,
    found: Option<Found>,
}

/// What comes next.
#[derive(Debug, Clone)]
enum Step {
    IndexHeader,
    Index {
        size: u64,
    },
    /// Of the member with this number, definitions first.
    Header(usize),
    Definition(usize),
    Resource {
        number: usize,
        left: u64,
        hasher: Box<MemberHasher>,
    },
    /// What follows the resource with this number.
    Padding(usize),
    End,
    Done,
    /// Something was refused.
    Failed,
}

/// What has been verified so far.
#[derive(Debug, Clone)]
struct Found {
    index: Index,
    envelope: Vec<u8>,
    signed: Signed,
    definitions: Vec<PackedDefinition>,
    resources: Vec<PackedResource>,
}

/// Who signed something, and when.
#[derive(Debug, Clone)]
struct Signed {
    signer: Certificate,
    root: Certificate,
    signing_time: UnixTime,
    stamped_at: Option<UnixTime>,
}

/// A verified pack.
#[derive(Debug, Clone)]
pub struct Pack {
    /// What it says of itself.
    pub index: Index,
    /// The index as it was signed.
    pub envelope: Vec<u8>,
    /// Who signed the index.
    pub signer: Certificate,
    /// The root that the signer chains to.
    pub root: Certificate,
    /// When, by the signer's own clock.
    pub signing_time: UnixTime,
    /// When at the latest, by a timestamp.
    pub stamped_at: Option<UnixTime>,
    /// Its definitions, by path.
    pub definitions: Vec<PackedDefinition>,
    /// Its resources, by path.
    pub resources: Vec<PackedResource>,
    /// Bytes of the whole archive.
    pub size: u64,
}

/// A verified definition of a pack.
#[derive(Debug, Clone)]
pub struct PackedDefinition {
    /// Where it stands.
    pub member: Member,
    /// The signed definition.
    pub envelope: Vec<u8>,
    /// The definition.
    pub definition: Definition,
    /// Who signed it.
    pub signer: Certificate,
    /// The root that the signer chains to.
    pub root: Certificate,
    /// When, by the signer's own clock.
    pub signing_time: UnixTime,
    /// When at the latest, by a timestamp.
    pub stamped_at: Option<UnixTime>,
}

/// A resource of a pack, whose content was the one that the index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedResource {
    /// Where it stands.
    pub member: Member,
    /// Where its content begins, in bytes from the archive's first.
    pub offset: u64,
}

impl<'a> Reader<'a> {
    /// Begins a pack. Index and definitions are judged as definitions are (G5), by `anchors` and `facts`.
    #[must_use]
    pub const fn new(anchors: Anchors<'a>, facts: Facts<'a>) -> Self {
        Self { anchors, facts, step: Step::IndexHeader, gathered: Vec::new(), taken: 0, found: None }
    }

    /// Takes the next piece of the archive, of any length.
    ///
    /// # Errors
    /// It is not what must stand there. From then on nothing is, and there is no pack.
    pub fn handle_piece(&mut self, piece: &[u8]) -> Result<(), PackError> {
        let taken = self.take(piece);
        if taken.is_err() {
            self.step = Step::Failed;
        }
        taken
    }

    fn take(&mut self, mut piece: &[u8]) -> Result<(), PackError> {
        while !piece.is_empty() {
            let wanted = self.wanted();
            if wanted == 0 {
                return Err(self.form("nothing may follow here"));
            }
            let now = usize::try_from(wanted).unwrap_or(usize::MAX).min(piece.len());
            let (taken, rest) = piece.split_at(now);
            piece = rest;
            if let Step::Resource { left, hasher, .. } = &mut self.step {
                hasher.update(taken);
                *left = left.saturating_sub(count(taken));
            } else {
                self.gathered.extend_from_slice(taken);
            }
            self.taken = self.taken.saturating_add(count(taken));
            if count(taken) == wanted {
                self.complete()?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Something is missing.
    pub fn finish(self) -> Result<Pack, PackError> {
        let within = self.within();
        match (self.step, self.found) {
            (Step::Done, Some(found)) => Ok(Pack {
                index: found.index,
                envelope: found.envelope,
                signer: found.signed.signer,
                root: found.signed.root,
                signing_time: found.signed.signing_time,
                stamped_at: found.signed.stamped_at,
                definitions: found.definitions,
                resources: found.resources,
                size: self.taken,
            }),
            (_, _) => Err(PackError::Truncated { got: self.taken, within }),
        }
    }

    /// Bytes until the step is complete; none: nothing may follow.
    fn wanted(&self) -> u64 {
        let whole = match &self.step {
            Step::IndexHeader | Step::Header(_) => count(&[0; BLOCK_BYTES]),
            Step::Index { size } => padded(*size),
            Step::Definition(number) => self.member(*number).map_or(0, |member| padded(member.digests.size)),
            Step::Resource { left, .. } => return *left,
            Step::Padding(number) => {
                self.member(*number).map_or(0, |member| count(padding(member.digests.size)))
            }
            Step::End => count(&END),
            Step::Done | Step::Failed => 0,
        };
        whole.saturating_sub(count(&self.gathered))
    }

    /// Judges what the step wanted, and goes on to the next one.
    fn complete(&mut self) -> Result<(), PackError> {
        let gathered = std::mem::take(&mut self.gathered);
        let step = std::mem::replace(&mut self.step, Step::Failed);
        self.step = match step {
            Step::IndexHeader => self.index_header(&gathered)?,
            Step::Index { size } => self.index(gathered, size)?,
            Step::Header(number) => self.header(number, &gathered)?,
            Step::Definition(number) => self.definition(number, gathered)?,
            Step::Resource { number, hasher, .. } => self.resource(number, hasher)?,
            Step::Padding(number) => {
                self.zeros(&gathered)?;
                self.after(number)
            }
            Step::End => {
                self.zeros(&gathered)?;
                Step::Done
            }
            Step::Done => Step::Done,
            Step::Failed => Step::Failed,
        };
        Ok(())
    }

    fn index_header(&self, block: &[u8]) -> Result<Step, PackError> {
        let most = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let size = size(block).filter(|size| (1..=most).contains(size) && header(INDEX_PATH, *size) == block);
        match size {
            Some(size) => Ok(Step::Index { size }),
            None => Err(self.form(&format!("wanted the header of {INDEX_PATH}, of 1 to {most} bytes"))),
        }
    }

    fn index(&mut self, gathered: Vec<u8>, size: u64) -> Result<Step, PackError> {
        let envelope = self.unpadded(gathered, size)?;
        let verified = self.verify(&envelope, ContentType::Pack).map_err(PackError::Envelope)?;
        let (content, signed) = signed(verified).ok_or_else(|| self.form("an index without signer"))?;
        let text = String::from_utf8(content).map_err(|_| PackError::Index("it is not UTF-8".to_owned()))?;
        let index = Index::parse(&text)?;
        self.found = Some(Found { index, envelope, signed, definitions: Vec::new(), resources: Vec::new() });
        Ok(Step::Header(0))
    }

    fn header(&mut self, number: usize, block: &[u8]) -> Result<Step, PackError> {
        let member = self.member(number).cloned().ok_or_else(|| self.form("no member"))?;
        let size = member.digests.size;
        if header(&member.path, size) != block {
            let found = name(block);
            let wanted = &member.path;
            return Err(self.form(&format!(
                "wanted the header of {wanted}, of {size} bytes, as the index says; found \"{found}\""
            )));
        }
        if self.definition_count() > number {
            return Ok(if size == 0 {
                self.definition(number, Vec::new())?
            } else {
                Step::Definition(number)
            });
        }
        let offset = self.taken;
        if let Some(found) = &mut self.found {
            found.resources.push(PackedResource { member, offset });
        }
        let hasher = Box::<MemberHasher>::default();
        if size == 0 {
            self.resource(number, hasher)
        } else {
            Ok(Step::Resource { number, left: size, hasher })
        }
    }

    fn definition(&mut self, number: usize, gathered: Vec<u8>) -> Result<Step, PackError> {
        let member = self.member(number).cloned().ok_or_else(|| self.form("no member"))?;
        let envelope = self.unpadded(gathered, member.digests.size)?;
        member.check(&Digests::of(&envelope))?;
        let refused = |problem| PackError::Signature { path: member.path.clone(), problem };
        let verified = self.verify(&envelope, ContentType::Definition).map_err(refused)?;
        let wrong = |problem: &str| PackError::member(&member.path, problem);
        let (content, signed) = signed(verified).ok_or_else(|| wrong("no signer"))?;
        let text = String::from_utf8(content).map_err(|_| wrong("not UTF-8"))?;
        let definition = Definition::parse(&text).map_err(|problem| PackError::Definition {
            path: member.path.clone(),
            problem: Box::new(problem),
        })?;
        let Some(found) = &mut self.found else { return Err(wrong("no index before it")) };
        found.index.check_definition(number, &definition)?;
        let Signed { signer, root, signing_time, stamped_at } = signed;
        found.definitions.push(PackedDefinition {
            member,
            envelope,
            definition,
            signer,
            root,
            signing_time,
            stamped_at,
        });
        // Before the first byte of a resource: what no definition names is not even hashed.
        if found.definitions.len() == found.index.definitions.len() {
            let definitions: Vec<_> = found.definitions.iter().map(|it| it.definition.clone()).collect();
            found.index.check_resources(&definitions)?;
        }
        Ok(self.after(number))
    }

    fn resource(&self, number: usize, hasher: Box<MemberHasher>) -> Result<Step, PackError> {
        let member = self.member(number).ok_or_else(|| self.form("no member"))?;
        member.check(&hasher.finish())?;
        let is_padded = !padding(member.digests.size).is_empty();
        Ok(if is_padded { Step::Padding(number) } else { self.after(number) })
    }

    /// Returns what follows a member.
    fn after(&self, number: usize) -> Step {
        let next = number.saturating_add(1);
        if self.member(next).is_some() { Step::Header(next) } else { Step::End }
    }

    fn verify(&self, bytes: &[u8], kind: ContentType) -> Result<Verified, envelope::EnvelopeError> {
        envelope::verify(bytes, kind, Role::Author, &self.anchors, &self.facts)
    }

    /// Takes the padding off a member.
    fn unpadded(&self, mut gathered: Vec<u8>, size: u64) -> Result<Vec<u8>, PackError> {
        let end = usize::try_from(size).unwrap_or(usize::MAX).min(gathered.len());
        self.zeros(gathered.get(end..).unwrap_or_default())?;
        gathered.truncate(end);
        Ok(gathered)
    }

    fn zeros(&self, bytes: &[u8]) -> Result<(), PackError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        Err(self.form("wanted zeros only, as padding and at the end"))
    }

    fn member(&self, number: usize) -> Option<&Member> {
        let index = &self.found.as_ref()?.index;
        let definitions = index.definitions.len();
        match number.checked_sub(definitions) {
            Some(resource) => index.resources.get(resource),
            None => index.definitions.get(number).map(|(_, _, member)| member),
        }
    }

    fn definition_count(&self) -> usize {
        self.found.as_ref().map_or(0, |found| found.index.definitions.len())
    }

    fn within(&self) -> String {
        let path = |number: usize| self.member(number).map_or("a member", |member| member.path.as_str());
        match &self.step {
            Step::IndexHeader | Step::Index { .. } => INDEX_PATH.to_owned(),
            Step::Header(number)
            | Step::Definition(number)
            | Step::Resource { number, .. }
            | Step::Padding(number) => path(*number).to_owned(),
            Step::End | Step::Done => "its end".to_owned(),
            Step::Failed => "what was refused".to_owned(),
        }
    }

    fn form(&self, problem: &str) -> PackError {
        PackError::Form { at: self.taken, problem: problem.to_owned() }
    }
}

fn signed(verified: Verified) -> Option<(Vec<u8>, Signed)> {
    let Verified { content, signers, roots, signing_time, stamped_at } = verified;
    let (signer, root) = (signers.into_iter().next()?, roots.into_iter().next()?);
    Some((content, Signed { signer, root, signing_time, stamped_at }))
}

fn padded(size: u64) -> u64 {
    size.saturating_add(count(padding(size)))
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
