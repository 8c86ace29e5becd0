package bounce

// Words by which notices are recognised, in lower case. They are signs among
// others (see signs.notice); a notice in a language that is missing here is
// still recognised by its sender and structure.

// daemonLocals are beginnings of local parts that mail servers write under.
var daemonLocals = []string{
	"mailer-daemon", "mailerdaemon", "mailer_daemon", "mailer.daemon", "mail-daemon", "maildaemon", "mail.daemon", "postmaster", "post_master", "post-master", "post.master",
	"postmast", "mdaemon", "microsoftexchange", "mail.delivery", "mail-delivery", "maildelivery", "mail_delivery", "delivery-status", "delivery_status",
	"delivery-notification", "bounce-notification", "mail-system", "mailsystem", "mail_system", "mail-administrator", "mailadministrator",
	"ndr@", "dsn@", "imss", "interscan", "daemon", "symantec_antivirus", "symantec_mail", "mailmarshal", "mailsweeper",
	"mail-returned", "returned-mail", "smtpd", "mta-", "mailerror", "mail-error", "nondelivery", "non-delivery", "undelivered", "undeliverable", "ammgr",
}

// daemonNames are parts of display names that mail servers write under.
var daemonNames = []string{
	"mailer-daemon", "mailer daemon", "mail delivery s", "mail deliver s", "mail delivery agent", "internet mail delivery", "mail administrator", "mailadministrator",
	"system administrator", "microsoft outlook", "microsoft exchange", "post office", "postoffice", "postmaster", "mail system", "delivery system", "delivery subsystem",
	"message router", "mail router", "interscan", "antivirus gateway", "messaging server", "systemadministrator", "administrador del sistema",
	"administrador do sistema", "administrateur système", "amministratore di sistema", "system attendant", "mailserver", "mail server", "mail gateway",
	"mail transfer", "mail transport", "delivery notification", "delivery failure", "systeembeheerder", "systemadministratör", "メール配信", "邮件系统", "系统退信",
	"почтовая система", "почтовый сервер",
}

// noticeSubjects are parts of the Subjects of failure and delay notices.
var noticeSubjects = folded(
	"undeliver", "undelvier", "not deliver", "non-deliver", "nondeliver", "non deliver", "could not be deliver", "cannot be deliver", "can not be deliver", "couldn't be deliver", "can't be deliver",
	"could not deliver", "unable to deliver", "unable to be delivered", "delivery fail", "delivery status", "delivery notification", "delivery problem", "delivery error", "delivery report", "delivery has failed", "delivery delay",
	"delivery unsuccessful", "delivery not possible", "delivery incomplete", "failed delivery", "failed mail", "mail failed", "mail failure", "mail error", "mail system error", "mail delivery", "mail returned", "mail rejected", "failed to deliver", "failed to send",
	"failure notice", "failure delivery", "failure notif", "failure report", "returned mail", "returned e-mail", "returned email", "returned message", "returning message", "message returned", "returned to sender", "return to sender",
	"message delivery", "message not delivered", "message status", "message delayed", "mail delayed", "delayed mail", "mail not delivered", "message could not", "message rejected", "rejected message", "rejected mail", "message was rejected", "message blocked", "permanent delivery", "permanent failure", "temporary failure",
	"bounce notif", "bounced mail", "bounced email", "bounce message", "bounced message", "email bounce", "mail bounce", "email delivery", "e-mail delivery",
	"user unknown", "unknown user", "no such user", "unknown recipient", "unknown address", "address unknown", "recipient unknown", "invalid recipient", "invalid address", "host unknown", "address not found", "mailbox unavailable", "mailbox full", "quota exceeded",
	"error sending your mail", "error sending", "processing error", "has not yet been delivered", "could not send message", "warning: message", "warning: could not", "nondelivery report", "non-delivery report",
	"mailbox over quota", "problem delivering", "problems delivering", "transport failure", "mail could not", "not member", "not a member", "malformed recipient",
	"no se puede entregar", "no se pudo entregar", "no entregado", "no entregable", "no entregada", "devuelto", "error de entrega", "fallo de entrega", "fallo en la entrega", "entrega fallida", "estado de entrega",
	"não entregue", "nao entregue", "não foi entregue", "não pode ser entregue", "não entregável", "falha na entrega", "falha de entrega", "erro de entrega", "devolvida", "notificação de status de entrega",
	"non remis", "non distribu", "non délivr", "non delivr", "échec de la remise", "echec de la remise", "échec de remise", "échec de livraison", "échec de la livraison", "impossible de remettre", "courrier non remis", "retour de courrier", "message non délivré", "avis de non",
	"unzustellbar", "nicht zustellbar", "nicht zugestellt", "zustellung fehlgeschlagen", "zustellfehler", "zustellung nicht möglich", "zustellungsfehler", "unzustellbarkeit", "fehler bei der zustellung", "fehler beim zustellen", "rückläufer", "zustellbericht", "konnte nicht zugestellt",
	"mancato recapito", "mancata consegna", "non recapitabile", "impossibile recapitare", "non recapitato", "errore di consegna", "messaggio non consegnato", "notifica di mancato",
	"onbestelbaar", "niet bezorgd", "kan niet worden bezorgd", "niet afgeleverd", "olevererbar", "olevererbart", "kan inte levereras", "gick inte att leverera", "kunne ikke leveres", "ikke leveret", "ikke levert", "kan ikke leveres", "toimitus epäonnistui", "ei voida toimittaa", "ei voitu toimittaa",
	"niedostarczon", "nie dostarczono", "nie można dostarczyć", "zwrot wiadomości", "błąd dostarczania", "nedoruč", "nelze doruč", "doručení se nezdařilo", "kézbesít", "nu a putut fi livrat", "nelivrat", "teslim edilemedi", "iletilemedi", "teslim edilemeyen",
	"недоставлен", "не доставлен", "не может быть доставлен", "сообщение не доставлено", "невозможно доставить", "ошибка доставки", "отказ доставки", "не вдалося доставити", "не було доставлено",
	"配信エラー", "配信不能", "配信できません", "配信に失敗", "送信エラー", "送信できません", "送信失敗", "メール送信に失敗", "不達", "未達", "返送", "エラーメール", "配達不能", "配送エラー", "配信不可", "届きません", "配信未完了", "配信状況通知",
	"退信", "无法投递", "无法送达", "未送达", "投递失败", "发送失败", "邮件投递", "邮件发送失败", "傳送失敗", "寄送失敗", "無法傳遞", "無法傳送", "無法投遞", "退件", "未傳遞", "传递失败", "送信失败", "反弹",
	"배달 실패", "전송 실패", "배달되지 않", "전달되지 않", "반송", "발송 실패", "배달할 수 없",
	"αδυναμία παράδοσης", "δεν παραδόθηκε", "μη παραδοτέο", "تعذر التسليم", "فشل التسليم", "لم يتم تسليم", "לא ניתן למסור", "מסירה נכשלה", "हीं किया जा सका", "không gửi được", "ไม่สามารถส่ง",
)

var delaySubjects = folded(
	"delay", "delayed", "(delay)", "still being retried", "warning: could not send", "could not send message for", "warning--could not send", "warning: message", "not yet been delivered", "temporarily", "verzögert", "retardé", "retrasad", "atraso", "ritardo", "задерж", "遅延", "延迟", "延遲",
)

var failureSubjects = folded(
	"(failure)", "undeliverable", "undelivered mail returned", "permanent", "returning message", "returned mail: user unknown", "failure notice",
)

// openings are phrases in which notices say what they are.
var openings = folded(
	"could not be delivered", "cannot be delivered", "can not be delivered", "couldn't be delivered", "can't be delivered", "was not delivered", "not delivered to", "has not been delivered", "have not been delivered", "were not delivered", "been undeliverable", "undeliverable", "is undeliverable", "not deliverable",
	"unable to deliver", "wasn't able to deliver", "was not able to deliver", "were not able to deliver", "weren't able to deliver", "not be able to deliver", "not able to be delivered", "unable to be delivered", "could not deliver", "couldn't deliver", "cannot deliver", "failed to deliver", "did not deliver", "not possible to deliver", "could not send your", "unable to send",
	"delivery to the following", "delevery to the following", "delivery has failed", "delivery failed", "delivery of your message", "failed delivery", "delivery failure", "delivery status notification", "delivery error", "failed permanently", "permanent fatal error", "permanent error", "permanent failure", "transient non-fatal", "delivery problems", "delivery errors", "delivery problem",
	"did not reach the following", "could not be reached", "did not reach", "has been returned", "is being returned", "being returned to you", "returned to sender", "returned to the sender", "message returned", "returning your message", "returned unopened", "returned because",
	"error was detected while processing", "an error occurred while trying to deliver", "error delivering your mail", "error while delivering", "encountered an error", "encountered delivery problems", "trouble delivering", "problem delivering", "error in delivery", "error has occurred while attempting to deliver", "there was an error sending",
	"was automatically rejected", "has been rejected", "was rejected by", "message was rejected", "mail was rejected", "been blocked by", "rejected by a remote", "refused to accept", "does not exist", "no such user", "unknown user", "user unknown", "not found at", "address is not known", "invalid address", "invalid user", "not listed in", "address was not found",
	"has not yet been delivered", "not yet been delivered", "has been delayed", "delivery attempts will continue", "delivery is delayed", "is delayed for", "will continue to be made", "will be retried", "warning message only", "could not send message for", "failure reasons", "failed recipient", "failed addresses", "transcript of session", "session transcript", "delivery report", "message from interscan", "the following address", "the following recipient",
	"not a member of this mailing list", "you are not member", "you are not a member", "not allowed to post", "mailbox is full", "over quota", "exceeded its quota", "mail quota", "did not like", "server message", "may not exist, or you may not have permission",
	"no pudo ser entregado", "no se ha podido entregar", "no se pudo entregar", "no puede ser entregado", "no ha podido ser entregado", "no se puede entregar", "não foi possível entregar", "não pôde ser entregue", "não pode ser entregue", "nao pode ser", "não foi entregue", "não pôde ser enviada", "no fue entregado", "error al entregar",
	"n'a pas pu être", "n'a pas pu etre", "n’a pas pu être", "n'ont pas pu", "impossible de délivrer", "impossible de remettre", "n'a pu être", "n'a pu etre", "n'a pas été remis", "n’a pas été remis", "adresse inconnue", "n'a pas été délivré",
	"konnte nicht zugestellt", "nicht zugestellt werden", "konnte nicht ausgeliefert", "nicht ausgeliefert werden", "zustellung ist fehlgeschlagen", "fehler bei der zustellung", "nicht erreicht werden", "konnte leider nicht", "unzustellbar",
	"non è stato possibile", "non e' stato possibile", "impossibile recapitare", "non può essere recapitato", "non è stato recapitato", "non può essere consegnato", "non è stato consegnato", "impossibile consegnare",
	"kon niet worden", "niet worden bezorgd", "niet worden afgeleverd", "kunde inte levereras", "kunne ikke leveres", "ei voitu toimittaa", "nie została dostarczona", "nie mogła zostać", "nie można dostarczyć", "nebylo možné doručit", "nelze doručit", "nem sikerült", "nu a putut fi", "teslim edilemedi", "iletilemedi",
	"не может быть доставлено", "не могло быть доставлено", "не удалось доставить", "не было доставлено", "не доставлено", "невозможно доставить", "не смогли доставить", "не вдалося доставити",
	"送信できません", "送信に失敗", "配信できません", "配信に失敗", "配信することができません", "お届けできません", "届けることができ", "送信されません", "送信することができ", "エラーのため", "存在しないか", "見つかりません", "宛先が",
	"无法投递", "无法送达", "无法发送", "未能送达", "未能投递", "投递失败", "发送失败", "被退回", "退信", "無法傳遞", "無法送達", "無法投遞", "傳送失敗", "不存在",
	"전송하지 못", "배달하지 못", "전달되지 않", "배달되지 않", "전송되지 않", "δεν ήταν δυνατή", "تعذر", "لم نتمكن", "לא ניתן", "לא הצלח",
)

// stillTrying are phrases of delays.
var stillTrying = folded(
	"warning message only", "do not need to resend", "please do not resend", "don't need to resend", "still being retried", "not yet been delivered", "not been delivered yet", "delivery attempts will continue", "will continue to attempt", "continue to try", "will keep trying", "keep trying", "will be retried", "will retry", "retry delivery",
	"has been delayed", "is delayed", "was delayed", "delayed for", "delivery is delayed", "still trying", "attempts will continue", "try again for", "temporarily delayed", "no action is required", "not required to take any action", "will attempt to deliver", "further attempts", "try to deliver it again", "be tried again", "continue trying", "transient non-fatal", "just a warning",
	"versuch wird fortgesetzt", "weiterhin versucht", "weitere zustellversuche", "noch nicht zugestellt", "pas encore été", "seguirá intentando", "ainda não foi", "tentativas de entrega continuar", "non è ancora stato", "еще не доставлено", "ещё не доставлено", "попытки доставки будут", "再送信を試み", "再送を試み", "配信が遅れ", "遅延してい", "系统将继续", "将继续尝试", "稍后重试",
)

// givingUp are phrases of final failures, also where the cause is temporary.
var givingUp = folded(
	"giving up", "gave up on", "given up", "i'm not going to try again", "retry timeout exceeded", "will be deleted from queue", "deleted from the queue", "removed from the queue", "message expired", "has expired", "permanent error", "permanent failure", "permanently", "no further delivery attempts", "no further attempts", "will not be retried", "won't be retried", "will not retry", "not be delivered for", "permanent fatal", "has been returned", "could not be delivered for",
	"gebe auf", "aufgegeben", "abandon", "se ha abandonado", "desistindo", "endgültig", "définitivement", "definitivamente",
)

// otherSubjects are Subjects of what mail servers send besides.
var otherSubjects = folded(
	"digest", "quarantine", "quarantän", "logwatch", "cron <", "cron daemon", "bounce action notification", "awaits moderator approval", "waiting for approval", "moderator request", "quota warning", "almost full", "mailbox usage", "approaching", "nearly full", "storage limit", "pending messages", "messages pending", "undelivered messages (", "report domain:", "dmarc", "tls report", "blocked attachment", "virus alert", "spam summary", "spam report", "statistics", "health check",
)

// peopleSubjects are Subjects of other mail. They say nothing in a notice of a
// mail server, which may repeat the Subject of the message.
var peopleSubjects = []string{
	"action required", "password", "subscription", "unsubscribe", "welcome to", "your parcel", "your package", "your order", "accepted:", "declined:", "tentative:", "canceled:", "invitation", "confirm your", "confirmation", "invoice", "payment",
}

// otherTexts are phrases of the same.
var otherTexts = folded(
	"release messages", "release these messages", "incoming messages could not", "incoming messages were", "held in quarantine", "messages in quarantine", "being held until the list moderator", "quarantined messages", "your mailbox is almost", "your mailbox has reached", "click here to verify your", "review pending messages", "retrieve your messages", "you will no longer receive mail", "your subscription has been disabled",
)
