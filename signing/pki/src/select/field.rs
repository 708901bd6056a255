//! [`Field`]: the certificates of a store, judged and compared.

use std::cmp::Ordering;

use super::candidate::{Candidate, Candidates};
use super::fitness::{Unfit, unfit};
use super::name::{Searched, is_fully_qualified};
use super::pin::{PinFate, PinProblem, PinRecord, Successor};
use super::preference::{Marks, ServerName, Step, first_difference};
use super::report::{Report, Standing, Why};
use super::settings::{FollowSuccessor, Selection};
use super::successor::is_successor;
use super::{Choice, Missing, Purpose, Question};
use crate::certificate::Certificate;
use crate::usage::ExtendedKeyUsage;

/// A store's certificates, each with what is wrong with it and what the steps of preference look at.
pub(super) struct Field<'a> {
    pub(super) entrants: Vec<Entrant<'a>>,
    pub(super) steps: &'static [Step],
}

pub(super) struct Entrant<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) unfit: Vec<Unfit>,
    pub(super) marks: Marks,
}

/// The position of the chosen one, and what decided for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Winner {
    pub(super) position: usize,
    pub(super) why: Why,
}

impl<'a> Field<'a> {
    /// Judges a store's certificates as clients' (S2).
    pub(super) fn clients(
        candidates: &'a Candidates,
        selection: &Selection,
        question: &Question<'_>,
    ) -> Self {
        let entrants = candidates.iter().enumerate().map(|(position, candidate)| {
            let certificate = candidate.certificate();
            let marks = Marks {
                issuer: Searched::issuer(certificate).contains_any(selection.issuer()),
                subject: Searched::subject(certificate).contains_any(selection.subject()),
                full_name: is_fully_qualified(certificate),
                server_name: ServerName::Neither,
                not_after: certificate.not_after(),
                position,
            };
            let unfit = unfit(candidate, &ExtendedKeyUsage::ClientAuth, question.now, question.revocation);
            Entrant { candidate, unfit, marks }
        });
        Self { entrants: entrants.collect(), steps: Step::CLIENT }
    }

    /// Returns the best by the steps, and what sets it off from the next best.
    pub(super) fn preferred(&self) -> Option<Winner> {
        let best = self.best(self.fit())?;
        let next = self.best(self.fit().filter(|other| other.marks.position != best.marks.position));
        let why = next.map_or(Why::OnlyOne, |next| self.difference(best, next));
        Some(Winner { position: best.marks.position, why })
    }

    /// Returns the best client certificate, if it is of a listed issuer or none is listed (S1, S3).
    pub(super) fn preferred_client(&self, selection: &Selection) -> Option<Winner> {
        let is_listed = |winner: &Winner| {
            selection.issuer().is_empty()
                || self.entrants.get(winner.position).is_some_and(|entrant| entrant.marks.issuer)
        };
        // The issuer is the first step: if the best one's is not listed, no other's is.
        self.preferred().filter(is_listed)
    }

    /// Returns what becomes of the pinned thumbprint, and whom it makes the winner (S5, N2).
    pub(super) fn pinned(
        &self,
        selection: &Selection,
        question: &Question<'_>,
    ) -> (Option<PinRecord>, Option<Winner>) {
        let Some(pinned) = selection.thumbprint() else { return (None, None) };
        let record = |fate| Some(PinRecord { pinned, fate });
        let counts = match question.purpose {
            Purpose::BackgroundChannel => true,
            Purpose::Switch => selection.issuer().is_empty() && selection.subject().is_empty(),
        };
        if !counts {
            return (record(PinFate::NotConsulted), None);
        }
        let is_pinned = |certificate: &Certificate| pinned.is_of(certificate.der());
        if let Some(entrant) = self.fit().find(|entrant| is_pinned(entrant.candidate.certificate())) {
            let winner = Winner { position: entrant.marks.position, why: Why::Pinned };
            return (record(PinFate::Taken), Some(winner));
        }
        let present = self.entrants.iter().find(|entrant| is_pinned(entrant.candidate.certificate()));
        let problem = present.map_or(PinProblem::Absent, |entrant| PinProblem::Unfit(entrant.unfit.clone()));
        let older = present.map(|entrant| entrant.candidate.certificate());
        let older = older.or(question.remembered.filter(|certificate| is_pinned(certificate)));
        let (successor, winner) = match (selection.follow_successor(), older) {
            (FollowSuccessor::No, _) => (Successor::NotAllowed, None),
            (FollowSuccessor::Yes, None) => (Successor::Unknown, None),
            (FollowSuccessor::Yes, Some(older)) => match self.successor(older) {
                Some(newer) => (Successor::Followed(newer.candidate.certificate().thumbprint()), {
                    let why = Why::Successor { of: older.thumbprint() };
                    Some(Winner { position: newer.marks.position, why })
                }),
                None => (Successor::NotFound, None),
            },
        };
        (record(PinFate::Invalid { problem, successor }), winner)
    }

    /// Returns the successor of a certificate (N2): of several the one that is valid longest, then the first in the store.
    pub(super) fn successor(&self, older: &Certificate) -> Option<&Entrant<'a>> {
        let newer = self.fit().filter(|entrant| is_successor(entrant.candidate.certificate(), older));
        newer.reduce(|best, next| if next.marks.not_after > best.marks.not_after { next } else { best })
    }

    /// Returns the first place of the certificate in the store where it is fit.
    pub(super) fn fit_at(&self, certificate: &Certificate) -> Option<usize> {
        self.fit()
            .find(|entrant| entrant.candidate.certificate() == certificate)
            .map(|entrant| entrant.marks.position)
    }

    /// Returns what is wrong with the certificate; `None` if it is not in the store.
    pub(super) fn unfit(&self, certificate: &Certificate) -> Option<&[Unfit]> {
        let mut same = self.entrants.iter().filter(|entrant| entrant.candidate.certificate() == certificate);
        same.next().map(|entrant| entrant.unfit.as_slice())
    }

    /// Tells everything: the winner, or that there is none, and what became of each.
    pub(super) fn answer(
        &self,
        candidates: &Candidates,
        winner: Option<Winner>,
        pin: Option<PinRecord>,
    ) -> Result<Choice, Missing> {
        let rows = self.entrants.iter();
        let rows = rows.map(|entrant| (entrant.candidate.clone(), self.standing(entrant, winner)));
        let report = Report::new(rows.collect(), candidates.unread(), pin);
        let chosen = winner.and_then(|winner| Some((winner, self.entrants.get(winner.position)?)));
        match chosen {
            Some((Winner { position, why }, entrant)) => {
                Ok(Choice { candidate: entrant.candidate.clone(), position, why, report })
            }
            None => Err(Missing { report, server: None }),
        }
    }

    fn standing(&self, entrant: &Entrant<'_>, winner: Option<Winner>) -> Standing {
        if !entrant.unfit.is_empty() {
            return Standing::Unfit(entrant.unfit.clone());
        }
        let chosen = winner.and_then(|winner| Some((winner, self.entrants.get(winner.position)?)));
        let Some((Winner { position, why }, best)) = chosen else {
            // Nothing else makes a fit certificate lose against nobody.
            return Standing::Unfit(vec![Unfit::IssuerNotListed]);
        };
        if position == entrant.marks.position {
            return Standing::Chosen(why);
        }
        match why {
            Why::OnlyOne | Why::Preferred(_) => Standing::Outranked(self.difference(best, entrant)),
            Why::Pinned | Why::Successor { .. } | Why::Kept => Standing::Outranked(why),
        }
    }

    fn difference(&self, best: &Entrant<'_>, other: &Entrant<'_>) -> Why {
        // Positions differ, so that the last step always decides.
        let step = first_difference(self.steps, &best.marks, &other.marks);
        Why::Preferred(step.map_or(Step::StoreOrder, |(step, _)| step))
    }

    fn fit(&self) -> impl Iterator<Item = &Entrant<'a>> {
        self.entrants.iter().filter(|entrant| entrant.unfit.is_empty())
    }

    fn best<'f>(&self, entrants: impl Iterator<Item = &'f Entrant<'a>>) -> Option<&'f Entrant<'a>>
    where
        'a: 'f,
    {
        entrants.reduce(|best, next| match first_difference(self.steps, &next.marks, &best.marks) {
            Some((_, Ordering::Greater)) => next,
            Some((_, Ordering::Less | Ordering::Equal)) | None => best,
        })
    }
}
