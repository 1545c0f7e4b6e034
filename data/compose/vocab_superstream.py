"""superstream: Australian superannuation, Chinese and English in one sentence. Families, facts, passages."""
import random

import hand_superstream as hand  # noqa: F401  (read by passages.py and dialogues.py)
import more_superstream_fund
import more_superstream_rule
from ask import Aspect, Profile, attach, widen
from ask_superstream import FRAMES, PROFILE_TABLE, QUESTIONS
from passages import Entity, parse_member

PREFIX = "ss"
TITLE = {"fund": "{n} PDS 摘要", "rule": "{n} 合规要点"}
CODE_ASPECTS = ["codes", "fees", "amount", "report"]

TENANT = {
    "id": "superstream", "name": "SuperStream 合规助手", "domain": "澳洲退休金（superannuation）产品与合规",
    "system_prompt": "你是 SuperStream 合规助手的检索改写模块，用户会中英文混着问 superannuation 的产品和规则。"
                     "请结合 history、用户画像和历史摘要补全被省略的 fund 名称、规则名称和 financial year，保留用户的原意，不回答问题，不添加对话里没有的条件。"
                     "Fund names, USI codes and years such as 2024-25 must be kept exactly as written. 只输出改写后的检索语句。",
    "protected_terms": ["SMSF", "ATO", "TFN", "USI", "PDS", "SG", "FHSS", "LISTO", "Division 293", "MySuper", "Downsizer", "BPAY"],
    "synonyms": {"怎么": ["如何", "怎样"], "取": ["提取", "领取"], "上限": ["cap", "额度"]},
    "term_expansion": {
        "养老金": ["super", "superannuation", "SMSF"], "贡献": ["contribution", "payment", "transfer"],
        "ATO": ["澳洲税务局", "税局"], "税局": ["ATO"], "费用": ["administration fee", "investment fee"], "fee": ["管理费", "费率"],
        "收益": ["return", "回报率"], "保险": ["insurance", "TPD", "death cover"], "取钱": ["condition of release", "提取"],
        "拿出来": ["condition of release", "提取"], "转过来": ["rollover", "转入"], "合并": ["rollover", "consolidation"],
        "雇主": ["employer", "SG"], "超了": ["excess", "超额"], "罚款": ["excess", "附加税"], "签证": ["temporary resident", "临时居民"],
        "上限": ["cap", "threshold"], "风险": ["risk", "资产配置"]},
}

# brand | options.  * only in test dialogues, ^ only in validation dialogues.
FUNDS = """
Banksia Super|Growth=Banksia Growth;Balanced=Banksia Balanced;Conservative*=Banksia Conservative;High Growth=Banksia High Growth
Wattle Super|Growth=Wattle Growth;Balanced=Wattle Balanced;Indexed Balanced*=Wattle Indexed
Kestrel Retirement|Growth=Kestrel Growth;Balanced*=Kestrel Balanced
Marlin Industry|Growth*=Marlin Growth;Balanced*=Marlin Balanced;Cash*=Marlin Cash
Bluegum Super|MySuper=Bluegum MySuper;Lifecycle=Bluegum Lifecycle
Lyrebird Super|High Growth=Lyrebird High Growth;Balanced=Lyrebird Balanced;Ethical=Lyrebird Ethical
Pelican Pension|Income=Pelican Income;Balanced^=Pelican Balanced
Jacaranda Super|Growth=Jacaranda Growth;Conservative=Jacaranda Conservative;Diversified*=Jacaranda Diversified
Currawong Super|Sustainable*=Currawong Sustainable;Balanced*=Currawong Balanced
Harbour SMSF|Basic=Harbour Basic;Plus^=Harbour Plus
海湾养老|Growth=海湾Growth;Balanced=海湾Balanced;Cash^=海湾Cash
Coorong Super|Indexed Shares=Coorong Shares;Indexed Bonds*=Coorong Bonds
金合欢Super|稳健型=金合欢稳健;进取型*=金合欢进取
Tern Super|Growth=Tern Growth;Balanced=Tern Balanced;Shares*=Tern Shares
"""

# name | Chinese alias | noun of the figure | figure of the year before, then of the three years | who it is for
# | what follows from passing it | exception | document | computation | due date | temporary residents | held-out years
RULES = """
Concessional Cap|税前供款上限|每财年 concessional contributions 总额上限|$27,500,$27,500,$30,000,$30,000|75岁以下成员，67岁起自愿抵税供款须满足 work test|excess 计入 assessable income，另给15% offset|total super balance 低于$500,000者可 carry forward 前五年未用额度|notice of intent|雇主 SG、salary sacrifice 与个人抵税供款相加|6月30日到账|同样适用|2025-26*
Non-concessional Cap|税后供款上限|每财年 non-concessional contributions 上限|$110,000,$110,000,$120,000,$120,000|75岁以下且 total super balance 未达上限者|须选择 release 超额款，associated earnings 按边际税率课征|bring-forward 允许一次动用三年额度|excess determination|税后自缴与 spouse contribution 合计，不含 downsizer|6月30日到账|同样适用|
SG Rate|雇主供款比例|雇主强制 super guarantee 费率|10.5%,11%,11.5%,12%|雇员，未满18岁者每周工时须超30小时|雇主须缴 super guarantee charge 且不得抵税|为个人家事雇用且每周不足30小时者除外|standard choice form|ordinary time earnings 乘以费率|季末后28日内|同样适用|2025-26*
Transfer Balance Cap|退休账户上限|可转入 retirement phase 的累计限额|$1,700,000,$1,900,000,$1,900,000,$2,000,000|开始领取 account-based pension 者|首次超额税率15%，再次为30%|child death benefit income stream 另行计算|TBAR|首次转入时按已用比例 indexation|季末后28日内|同样适用|2023-24^
Contribution Base|供款基数上限|每季度 maximum contribution base|$60,220,$62,270,$65,070,$62,500|高薪雇员及其雇主|超出部分雇主没有强制供款义务|多雇主者可申请 opt-out certificate|shortfall exemption certificate|按季度 ordinary time earnings 封顶|季末后28日内|同样适用|
Low Rate Cap|低税率提取额|lump sum 低税率终身限额|$230,000,$235,000,$245,000,$260,000|达到 preservation age 而未满60岁者|超出部分按17%课税（含 Medicare levy）|60岁以后提取 taxed element 不适用本限额|PAYG payment summary|终身累计 taxable component|10月31日报税截止|不适用|2025-26*
Co-contribution|政府配套供款|全额配套的收入下限|$42,016,$43,445,$45,400,$47,488|71岁以下、至少10%收入来自工作者|收入越过上限则配套为零|已申报抵税的个人供款不予配套|income tax return|每1元税后供款配0.5元，最高$500|10月31日报税截止|不适用|2025-26^
Division 293|高收入附加税|附加税收入门槛|$250,000,$250,000,$250,000,$250,000|收入连同供款超过门槛的成员|对超出部分加征15%|受宪法保护的州级基金另行递延|release authority|收入加 low tax contributions，与门槛差额取低者|通知书后21日内|同样适用|2025-26*
Downsizer|卖房供款|每人 downsizer 供款限额|$300,000,$300,000,$300,000,$300,000|年满55岁且持有住所十年以上者|不合格款项改计 non-concessional|不受 work test 与 total super balance 限制，一生仅限一次|downsizer contribution form|售房款与限额取低，夫妻分别计算|过户后90日内|同样适用|2023-24*,2024-25*,2025-26*
FHSS|首套房提取|合格自愿供款累计可提限额|$50,000,$50,000,$50,000,$50,000|年满18岁且从未在澳持有物业者|提取后未购房须缴20% FHSS tax|经认定的 financial hardship 可豁免首购要求|FHSS determination|合格供款的85%加 associated earnings，每年最多计$15,000|签约后90日内通知|同样适用|2023-24^
LISTO|低收入退税|每财年最高退税额|$500,$500,$500,$500|adjusted taxable income 不超过$37,000者|收入超标则退税为零|未向基金提供 TFN 者无法入账|TFN declaration|concessional contributions 的15%|由税局在次年内自动处理|不适用|2024-25*
Minimum Drawdown|最低提取比例|65岁以下 pension 年度最低提取率|2%,4%,4%,4%|account-based pension 持有人|当年投资收益失去免税待遇|首年按剩余天数折算，6月开户可免|pension statement|7月1日余额乘以年龄档比例|6月30日前付出|同样适用|2023-24*
"""
YEARS = ["2023-24", "2024-25", "2025-26"]


def fund_facts(name, brand, number):
    """The facts of one fund option, drawn once."""
    rng = random.Random(f"superstream/facts/{name}")
    share = 85 if "Growth" in name or "Shares" in name or "进取" in name else 25 if "Cash" in name or "Conserv" in name or "Bonds" in name else 65
    growth = share + rng.randrange(-8, 9)
    low = brand[:3].upper() if brand.isascii() else {"海": "BAY", "金": "JHH"}[brand[0]]
    return {
        "category": brand, "week": f"{rng.randrange(90, 260) / 100:.2f}", "adm": f"{rng.randrange(8, 45) / 100:.2f}",
        "inv": f"{rng.randrange(15, 98) / 100:.2f}", "capfee": rng.choice([350, 450, 600, 750, 900]), "r1": f"{rng.randrange(310, 1490) / 100:.2f}",
        "r5": f"{rng.randrange(290, 980) / 100:.2f}", "r10": f"{rng.randrange(300, 920) / 100:.2f}", "grow": growth, "def": 100 - growth,
        "risk": "high" if growth > 80 else "medium to high" if growth > 50 else "low to medium", "years": rng.choice([3, 5, 7, 10, 12]), "neg": rng.choice([1, 2, 3, 4, 5, 6]),
        "goal": f"CPI + {rng.randrange(4, 10) / 2}%", "death": rng.randrange(8, 45) * 10, "tpd": rng.randrange(6, 40) * 10, "prem": f"{rng.randrange(120, 990) / 100:.2f}",
        "wait": rng.choice([30, 60, 90]), "insage": rng.choice([65, 67, 70]), "insbal": rng.choice([6000, 8000, 10000]),
        "risky": rng.choice(["高危职业须单独核保", "高空及井下作业不在默认保障内", "hazardous occupation 加收保费"]),
        "minbal": rng.choice([0, 1500, 2000, 5000, 10000]), "visa": rng.choice(["temporary resident 可开户", "temporary resident 不受理", "temporary resident 仅限雇主代开"]),
        "opendays": rng.choice([1, 2, 3, 5]), "biller": rng.randrange(100000, 999999), "mincon": rng.choice([10, 20, 50, 100]), "credit": rng.choice([1, 2, 3, 5]),
        "pay": rng.choice([3, 5, 7, 10]), "minwd": rng.choice([500, 1000, 2000, 3000]), "hard": rng.choice([10000, 8000]), "roll": rng.choice([3, 5, 7]),
        "switch": rng.choice(["每日16:00 AEST", "每周三15:00 AEST", "每日12:00 AEST"]), "swfee": rng.choice([0, 0, 20, 35]), "keep": rng.choice([5000, 6000, 10000]),
        "code": f"{low}{number:04d}AU", "abn": f"{rng.randrange(10, 99)} {rng.randrange(100, 999)} {rng.randrange(100, 999)} {rng.randrange(100, 999)}",
        "trustee": f"{brand.split(' ')[0].replace('Super', '')} Trustees Ltd", "audit": f"{rng.randrange(2023, 2026)}年{rng.randrange(1, 13)}月",
    }


def rule_facts(fields, year, at, number):
    """The facts of one rule in one financial year."""
    name, _, noun, figures, who, over, exc, doc, calc, due, visa, _ = fields
    figures = figures.replace(",$", "|$").split("|") if "$" in figures else figures.split(",")
    first = int(year[:4])
    before, now = figures[at], figures[at + 1]
    change = f"由{before}调整为{now}" if before != now else f"维持{now}不变"
    return {"category": name, "noun": noun, "amt": now, "prev": before, "change": change, "who": who, "over": over, "exc": exc, "doc": doc,
            "calc": calc, "due": due, "visa": visa, "y1": first, "y2": first + 1, "code": f"SSR-{number:02d}{first % 100}", "last": f"{first - 1}-{first % 100:02d}",
            "changeq": f"{'没变，还是' if before == now else '变了，现在'}{now}", "visaq": "临时签证也可以" if visa == "同样适用" else "临时签证不行"}


FUND_TEMPLATES = {
    "fees": ["{n}（USI {code}）每周收取 administration fee ${week}，另按资产年计{adm}%，年封顶${capfee}；investment fee 为{inv}% p.a.，[买卖价差另计|从净值中扣除]，exit fee 为零。",
             "【费率披露】USI {code}：{n} 管理费 ${week}/week 加{adm}% p.a.，上限${capfee}；投资管理费率{inv}% p.a.，[不收退出费|不设 exit fee]，[按日计提|按月扣收]。",
             "Fees and costs: {n} 账户管理成本由每周${week}与{adm}%比例费组成，年度封顶${capfee}，投资费{inv}%，[不另收 establishment fee|退出免费]，USI {code}。"],
    "returns": ["{n} 扣费后回报率：一年{r1}%，五年年化{r5}%，十年年化{r10}% p.a.，投资目标为{goal}。[过往表现不代表未来|数据截至{audit}]，收益已扣 tax。",
                "【历史业绩】截至{audit}，{n} 的1-year return 为{r1}%，5-year {r5}% p.a.，10-year {r10}% p.a.；[目标|长期目标]{goal}，[业绩波动属正常现象|不构成保证]。",
                "Net return 披露：{n} 近十年年化{r10}%，近五年{r5}%，最近一年{r1}%，对照目标{goal}，[由 custodian 核算|经 trustee 复核]，税费后口径。"],
    "allocation": ["{n} 资产配置为 growth assets {grow}%、defensive assets {def}%，风险等级 {risk}，建议持有{years}年以上，预计每20年出现{neg}次负回报。",
                   "【资产配置与风险】成长型资产占{grow}%，防御型占{def}%。{n} 的 standard risk measure 为 {risk}，最短投资期限{years}年，二十年内约{neg}年亏损。",
                   "Strategic allocation: {n} 以{grow}/{def}的 growth/defensive 比例运作，risk band 属 {risk}，[推荐|适宜]期限不少于{years}年，负收益频率 {neg} in 20 years。"],
    "insurance": ["{n} 默认保障：death cover ${death},000，TPD ${tpd},000，每周保费${prem}，等待期{wait}日，保至{insage}岁。{risky}，余额满${insbal}自动生效。",
                  "【默认 insurance】身故${death},000、全残${tpd},000；premium ${prem}/week。{n} 设{wait}天 waiting period，终止年龄{insage}岁，余额低于${insbal}需 opt in，{risky}。",
                  "Insurance in super: {n} 成员余额达${insbal}后享 death ${death},000 与 TPD ${tpd},000 保障，周扣${prem}，{risky}，收入保障等候{wait}日，{insage}岁终止，可申请退出。"],
    "joining": ["{n} 开户资格：年满15岁并持有 TFN，起始余额${minbal}。{visa}，线上核验{opendays}个工作日内生效，[雇主可代为登记|需完成100 point check]。",
                "【入会条件】提供 TFN 与身份证明即可申请 {n}，最低初始资金${minbal}；{visa}；审核时效{opendays}个工作日，[未成年人须监护人签字|不收开户费]。",
                "Eligibility: {n} 接受澳洲雇员及自雇人士，{visa}，initial balance 不低于${minbal}，[递交|完成]身份与 TFN 核验后{opendays}个工作日开通成员号。"],
    "contribute": ["向 {n} 供款可用 BPAY（biller {biller}）或 payroll deduction，单笔最低${mincon}，{credit}个工作日入账。[salary sacrifice 由雇主申报|年末请预留清算时间]。",
                   "【供款渠道】BPAY biller code {biller}；direct debit 最低${mincon}。{n} 款项{credit}个工作日后记账，[配偶供款须另附表格|自雇者可设每月扣款]，雇主走 SuperStream 通道。",
                   "Contribution 办理：{n} 成员以 biller {biller} 付款，下限每笔${mincon}，记入时效{credit}个工作日，[现金不受理|支票不受理]，雇主须经 clearing house 上传。"],
    "withdraw": ["{n} 提取须满足 condition of release：年满60岁且退休，或年满65岁。审核后{pay}个工作日付款，单次不少于${minwd}，severe financial hardship 每年限${hard}。",
                 "【领取条件】{n} 账户资金在65岁、或60岁后终止雇佣时释放；困难提取12个月内最高${hard}，[须附 Centrelink 证明|税前口径]，付款{pay}个工作日，最低${minwd}。",
                 "Benefit payment: 达到60岁并离职、或满65岁者可领取 {n} 余额，{pay}个工作日划款，部分提取下限${minwd}；hardship 上限${hard}，[compassionate grounds 由 ATO 审批|永久离境另行处理]。"],
    "rollover": ["转入转出：{n} 收到 rollover 申请后{roll}个工作日完成；转出须保留${keep}以维持保险。option 切换截止{switch}，切换费${swfee}。",
                 "【Rollover 与转换】{n} 处理时效{roll}个工作日，部分转出后余额不得低于${keep}；投资选项变更以{switch}为界，收费${swfee}，[合并前请核对保险|需提供对方 USI]。",
                 "Consolidation 说明：将其他基金并入 {n} 需{roll}个工作日，[经 myGov 或表格提交|附身份证明]；内部 switch 费${swfee}，受理截点{switch}，部分转出最低留存${keep}。"],
    "codes": ["{n} 的 USI 为{code}，ABN {abn}，受托人 {trustee}，[合规函|compliance letter]可在雇主专区下载，最近审计{audit}。该基金为 complying fund，雇主填 choice form 时使用。",
              "【基金识别信息】USI {code}；ABN {abn}；trustee：{trustee}。{n} 于{audit}完成审计，属 complying superannuation fund，[雇主供款以 USI 匹配|填写 standard choice form 须与此一致]。",
              "Fund details: {n} — unique superannuation identifier {code}，ABN {abn}，由 {trustee} 受托管理，{audit}经独立审计，[compliance letter 随附|支持 SuperStream 报文]，状态 complying。"],
}
RULE_TEMPLATES = {
    "amount": ["{n}：{noun}为{amt}，适用期间{y1}年7月1日至{y2}年6月30日，[按 AWOTE 定期复核|以 ATO 公布为准]，知识库编号{code}。超出时另见后果说明。",
               "【限额与费率】编号{code}，{n} 所列{noun}：{amt}。生效自{y1}年7月1日，[至次年6月30日止|覆盖整个 financial year]，[跨年付款以到账日归属|不按自然年计]。",
               "Threshold 摘要（{code}）：在{y1}-07-01至{y2}-06-30的财年内，{n} 的{noun}定为{amt}，[逐年 indexation|各年度不得混用]，成员应逐笔核对。"],
    "eligible": ["{n} 适用对象：{who}。临时居民{visa}，年龄以6月30日为准[，须已提供 TFN|]，判断时点为{y2}年6月30日，[雇员与自雇者同一口径|不区分 accumulation 与 defined benefit]。",
                 "【适用范围】{who}，方受 {n} 约束或可享受。年龄以财年末计[，身份以 ATO 登记为准|]；temporary resident {visa}；评估截至{y2}年6月30日。",
                 "Eligibility test：{n} 覆盖{who}，temporary visa 持有人{visa}。各项条件应在{y1}-{y2}财年内[同时|持续]满足，年龄以财年末计[，缺一不可|，由基金初核]。"],
    "deadline": ["{n} 的时限要求：{due}。{y2}年6月30日为财年结束日，[clearing house 处理需预留5个工作日|逢周末不顺延]，逾期归入下一年度。",
                 "【期限】{due}，对应{y1}年7月1日起的财年。办理 {n} 相关事项，[建议6月中旬前付款|以基金实际收讫为准]，迟延将按次年处理或产生利息。",
                 "Due date：按 {n} 规定，{due}（{y1}/{y2}财年）。[电子申报以系统时间为准|邮寄以邮戳为准]，延期申请须于到期前书面提交，逾期计入次年。"],
    "excess": ["{n} 超限或不合规的后果：{over}。ATO 将签发 determination，成员须在60日内作出选择，[逾期由税局代为决定|另计 interest charge]，记录保留至{y2}年后五年。",
               "【超额处理】违反 {n} 时，{over}；通知书发出后60日内须回应，[可经 myGov 办理|可申请 objection]，{y1}-{y2}财年的款项单独核算。",
               "Consequence：触发 {n} 之后，{over}，[由 ATO 依据基金申报数据认定|不得以不知情抗辩]，60日内未选择视为默认方案，适用年度截至{y2}年6月30日。"],
    "exempt": ["{n} 例外情形：{exc}。[申请人须主动举证|由 ATO 个案裁量]，特殊情况可请求 disregard or reallocate，需在{y2}财年评税后60日内提出。",
               "【豁免与例外】{exc}。除此之外 {n} 不设其他宽免，特殊情形须自评税起60日内申请，[指引见 ATO 裁定|附书面材料]，决定仅对{y1}-{y2}财年有效。",
               "Exceptions：就 {n} 而言，{exc}；special circumstances 的申请窗口为评税通知后60日，[一经批准不可转让|结果以书面送达]，适用至{y2}年6月30日。"],
    "documents": ["办理 {n} 所需文件：{doc}，并附身份证明与账户 statement。[原件保存五年|可上传扫描件]，{y1}-{y2}财年记录应在{y2}年10月31日前整理。",
                  "【证明材料】{doc} 为 {n} 的核心凭证，须由成员或雇主签署；[基金应出具书面 acknowledgement|缺签视为无效]，留存期限五年（自{y2}年起算）。",
                  "Paperwork：{n} 要求提交 {doc}，连同{y1}/{y2}财年供款明细，[由 trustee 归档|支持电子签名]，保存不少于5年以备 ATO 查验。"],
    "calc": ["{n} 计算口径：{calc}。以{y1}年7月1日至{y2}年6月30日实际到账为准，[不足一元舍去|保留两位小数]，结果与{noun}比较。",
             "【计算方法】{calc}；所得与{noun}对照，即为 {n} 的判定结果。[多基金合并计算|各雇主分别申报]，数据取自{y1}-{y2}财年的 MATS 报送。",
             "Worked method：依 {n}，{calc}，统计期{y1}-07-01起十二个月，[估值取6月30日收市|更正须走 amendment]，再比对{noun}。"],
    "change": ["{n} 与{last}财年相比，{noun}{change}，[源于 indexation 规则|按立法时间表执行]，自{y1}年7月1日起生效，旧年度款项仍沿用原标准。",
               "【年度变更】{last}→{y1}财年：{noun}{change}。{n} 其余条款[未作修订|措辞略有更新]，过渡期付款按到账日适用。",
               "What changed：相较{last}，{n} 的{noun}{change}，生效日{y1}年7月1日，[系统参数已同步|雇主应更新 payroll 设置]，不追溯既往。"],
    "report": ["{n} 由基金经 MATS 报送税局，成员在 myGov 的 ATO 栏目查询，[雇主走 Single Touch Payroll，|]错报由基金提交 amendment，{y2}年10月31日前核对，编号{code}。",
               "【申报渠道】编号{code}：{n} 数据通过 SuperStream 报文上传 ATO，个人无须另表，myGov 可下载明细，更正由基金发起 amendment，{y1}-{y2}财年数据七月底前齐备。",
               "Reporting（{code}）：{n} 相关金额由 trustee 申报给税局，[十个工作日内|月结后]可在 myGov 看到，成员报税截止{y2}年10月31日，误报可申请 amendment。"],
}
FUND_LABELS = [("fees", "费率披露", "fee", "PDS", "general"), ("returns", "历史业绩", "收益", "fund update", "general"), ("allocation", "资产配置与风险", "风险", "PDS", "technical"),
               ("insurance", "默认保险保障", "保险", "insurance guide", "technical"), ("joining", "入会条件", "开户", "PDS", "general"), ("contribute", "供款渠道", "存钱", "member guide", "technical"),
               ("withdraw", "领取条件", "取钱", "member guide", "compliance"), ("rollover", "转入转出与转换", "转基金", "member guide", "technical"), ("codes", "基金识别信息", "USI", "fund register", "compliance")]
RULE_LABELS = [("amount", "限额与费率", "额度", "ATO guidance", "compliance"), ("eligible", "适用范围", "适合谁", "ATO guidance", "compliance"), ("deadline", "时限", "截止日", "ATO guidance", "compliance"),
               ("excess", "超额后果", "超了", "ATO guidance", "compliance"), ("exempt", "豁免与例外", "例外", "ATO guidance", "compliance"), ("documents", "证明材料", "材料", "compliance manual", "technical"),
               ("calc", "计算方法", "怎么算", "compliance manual", "technical"), ("change", "年度变更", "变化", "bulletin", "general"), ("report", "申报渠道", "申报", "compliance manual", "technical")]
ASPECTS = {"fund": [Aspect(*row, FUND_TEMPLATES[row[0]]) for row in FUND_LABELS],
           "rule": [Aspect(*row, RULE_TEMPLATES[row[0]]) for row in RULE_LABELS]}
MORE = {"fund": more_superstream_fund, "rule": more_superstream_rule}
for kind, aspects in ASPECTS.items():
    attach(aspects, QUESTIONS[kind])
    attach(aspects, MORE[kind].QUESTIONS, "train")
globals().update(FRAMES)
PROFILES = [Profile(*row) for row in PROFILE_TABLE]
for kind, more in MORE.items():
    widen(globals(), PROFILES, kind, more)


def entities():
    """All fund options, then all rules by year, in the order of the tables."""
    out = []
    for line in FUNDS.strip().splitlines():
        brand, members = line.split("|")
        for member in members.split(";"):
            option, aliases, hold = parse_member(member)
            name = f"{brand} {option}" if brand.isascii() else f"{brand}{option}"
            number = 101 + len(out) * 37
            facts = fund_facts(name, brand, number)
            entity = Entity(name, aliases, [facts["code"]], brand, "fund", hold)
            entity.facts = facts
            out.append(entity)
    for number, line in enumerate(RULES.strip().splitlines(), 1):
        fields = line.split("|")
        held = dict(parse_member(item)[::2] for item in fields[11].split(",") if item)
        for at, year in enumerate(YEARS):
            facts = rule_facts(fields, year, at, number)
            entity = Entity(f"{fields[0]} {year}", [f"{fields[1]}{year}"], [facts["code"]], fields[0], "rule", held.get(year, ""))
            entity.facts = facts
            out.append(entity)
    return out
