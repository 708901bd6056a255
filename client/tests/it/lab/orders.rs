//! Orders and stops.

use std::time::Duration;

use muster_pki::{Role, Thumbprint, UnixTime};
use muster_proto::order::v1::{Audience, Order};
use muster_signing::envelope::{self, ContentType};
use muster_signing::order;

use super::{Lab, TENANT, instruction, issue_at, now_ms, seconds, sign, signer};

impl Lab {
    /// Signs an order for everybody.
    pub(crate) fn order(&self, number: u8) -> Vec<u8> {
        self.order_with(number, |_| {})
    }

    /// Signs an order that differs.
    pub(crate) fn order_with(&self, number: u8, change: impl FnOnce(&mut Order)) -> Vec<u8> {
        sign(&self.order_content(number, change), ContentType::Order, &signer(&self.operator))
    }

    /// Signs an order at a later time, by an operator whose certificate begins then.
    pub(crate) fn order_from(&self, number: u8, later: Duration) -> Vec<u8> {
        let at = UnixTime::now().as_secs() + later.as_secs();
        let young = issue_at(&self.orders, "operator", Role::OrderSigner, seconds(at));
        envelope::sign(&self.order_content(number, |_| {}), ContentType::Order, &signer(&young), seconds(at))
            .unwrap()
    }

    /// Signs an order for everybody with the Switch's own key, and returns that key's thumbprint, too.
    pub(crate) fn order_by_switch(&self, number: u8) -> (Vec<u8>, Thumbprint) {
        let (content, key) = (self.order_content(number, |_| {}), &self.order_keys[0]);
        (sign(&content, ContentType::Order, &signer(key)), key.certificate.thumbprint())
    }

    /// Signs an order with both keys of the Switch, and returns their thumbprints, too.
    pub(crate) fn order_by_both_keys(&self, number: u8) -> (Vec<u8>, [Thumbprint; 2]) {
        let (order, _) = self.order_by_switch(number);
        let both = envelope::cosign(&order, &signer(&self.order_keys[1]), UnixTime::now()).unwrap();
        (both, self.order_keys.each_ref().map(|key| key.certificate.thumbprint()))
    }

    /// Signs the stop of an instruction, as an operator; `number` is the stop's own.
    pub(crate) fn stop(&self, number: u8, of: u8) -> Vec<u8> {
        self.stop_with(number, of, |_| {})
    }

    /// Signs a stop that differs.
    pub(crate) fn stop_with(&self, number: u8, of: u8, change: impl FnOnce(&mut Order)) -> Vec<u8> {
        sign(&self.stop_content(number, of, change), ContentType::Order, &signer(&self.operator))
    }

    /// Signs the stop of an instruction with the Switch's own key.
    pub(crate) fn stop_by_switch(&self, number: u8, of: u8) -> Vec<u8> {
        sign(&self.stop_content(number, of, |_| {}), ContentType::Order, &signer(&self.order_keys[0]))
    }

    fn stop_content(&self, number: u8, of: u8, change: impl FnOnce(&mut Order)) -> Vec<u8> {
        self.order_content(number, |order| {
            let (tenant, operator) = (order.tenant.clone(), order.operator.clone());
            let (not_before_ms, expires_at_ms) = (order.not_before_ms, order.expires_at_ms);
            *order = Order {
                tenant,
                instruction: instruction(number).to_vec(),
                licence_serial: 1,
                audience: Some(Audience::default()),
                not_before_ms,
                expires_at_ms,
                sequence: u64::from(number),
                operator,
                stops: instruction(of).to_vec(),
                reason: "wrong fleet".to_owned(),
                ..Order::default()
            };
            change(order);
        })
    }

    fn order_content(&self, number: u8, change: impl FnOnce(&mut Order)) -> Vec<u8> {
        let now_ms = now_ms();
        let mut order = Order {
            tenant: TENANT.to_owned(),
            instruction: instruction(number).to_vec(),
            definition_name: "Acme-Test-Answer".to_owned(),
            definition_version: "1.0.0".to_owned(),
            definition_digest: self.definition_digest().to_vec(),
            licence_serial: 1,
            arguments: Vec::new(),
            audience: Some(Audience::default()),
            not_before_ms: now_ms - 1_000,
            expires_at_ms: now_ms + 600_000,
            sequence: u64::from(number),
            operator: "operator".to_owned(),
            ..Order::default()
        };
        change(&mut order);
        order::encode(&order)
    }
}
