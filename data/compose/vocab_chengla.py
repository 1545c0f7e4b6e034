"""chengla: courses for civil-service and other exams. Families, facts and the formal side (passages)."""
import random

import hand_chengla as hand  # noqa: F401  (read by passages.py and dialogues.py)
import more_chengla as more
from ask import Aspect, Profile, attach, widen
from ask_chengla import FRAMES, PROFILE_TABLE, QUESTIONS
from passages import Entity, parse_member

PREFIX = "cl"
TITLE = {"course": "{n} 课程说明"}
CODE_ASPECTS = ["price", "schedule"]

TENANT = {
    "id": "chengla", "name": "成啦学堂", "domain": "公务员与职业资格考试培训",
    "system_prompt": "你是成啦学堂的检索改写助手，负责把学员的口语提问改写成一句可以直接检索的完整语句。"
                     "请根据对话历史、用户画像和历史摘要补全被省略的课程名称、年份和班型，保留学员原本的意图，不回答问题，不新增对话之外的条件。"
                     "年份、科目、班型和课程编号必须原样保留。只输出改写后的语句。",
    "protected_terms": ["行测", "申论", "国考", "省考", "事业编", "三支一扶", "选调生", "教资", "法考", "数量关系", "资料分析"],
    "synonyms": {"学习": ["备考", "复习"], "课程": ["课堂", "培训"]},
    "term_expansion": {
        "没基础": ["零起点", "先修要求"], "零基础": ["零起点", "先修要求"], "上班": ["在职", "授课时段"], "几点": ["授课时段"],
        "开课": ["开班日期"], "多少钱": ["学费", "课程定价"], "便宜": ["优惠", "减免"], "团购": ["拼团", "优惠"],
        "退钱": ["退费"], "没考上": ["未通过", "退费"], "不过": ["未通过", "协议"], "换班": ["转班", "调换"],
        "重学": ["重修", "复训"], "老师": ["主讲", "师资"], "录像": ["回放", "有效期"], "讲义": ["教材", "资料"],
        "手机": ["终端", "客户端"], "几节课": ["课时"]},
}

# family | code | exam | content a,b,c | learners (formal ~ spoken) | members
FAMILIES = """
国考|GK|国家公务员考试|常识判断,言语理解,判断推理|首次备考的应届毕业生~第一次考的|2025国考行测系统班;2025国考申论系统班;2026国考行测系统班;2026国考申论系统班*
省考|SK|省级公务员联考|数量关系,资料分析,申论小题|有一定基础的往届考生~考过一次的|2025省考行测冲刺班;2025省考申论冲刺班;2026省考行测冲刺班*;2026省考申论冲刺班*
面试|MS|公务员面试|结构化问答,无领导小组,礼仪仪态|已进入面试的考生~进了面试的|国考面试特训营=国面营;省考面试特训营=省面营;税务面试特训营*=税面营
事业编|SY|事业单位联考|职业能力倾向,综合应用,公共基础|报考事业单位的考生~想进事业单位的|事业编A类全程班=事业编A类;事业编B类全程班=事业编B类;事业编C类全程班*=事业编C类
教资笔试|JZ|教师资格笔试|综合素质,教育知识,学科教学|在校师范生及转行人员~非师范的|教资小学笔试班=小学教资班;教资中学笔试班=中学教资班;教资幼儿笔试班^=幼儿教资班
教资面试|JM|教师资格面试|试讲,答辩,结构化|笔试已合格的考生~笔试过了的|教资小学试讲营=小学试讲营;教资中学试讲营*=中学试讲营
教招|JZB|教师公开招聘|教育学,心理学,教育法规|持有教师资格证者~有教资证的|教师招聘学霸班=教招学霸班;教师招聘冲刺班=教招冲刺班
公安|GA|公安联考|公安基础,行测,申论|警校及社会考生~想当警察的|公安联考专项班;公安联考刷题营=公安刷题营
选调|XD|选调生考试|政策理论,行测,策论|中共党员或学生干部~当过班干部的|选调生笔试班;选调生面试班*
军队文职|JD|军队文职统考|公共科目,岗位能力,专业知识|符合军队岗位条件者~想去部队的|军队文职公共班=文职公共班;军队文职会计班=文职会计班;军队文职护理班*=文职护理班
三支一扶|SZ|三支一扶选拔|综合知识,时政,公文写作|愿意服务基层的毕业生~想去基层的|三支一扶全程班;三支一扶刷题班^
银行|YH|银行招聘考试|职业能力,英语,金融常识|财经类毕业生~学金融的|银行秋招笔试班=秋招银行班;银行春招笔试班=春招银行班
国网|GW|国家电网统考|电路原理,电力系统,企业文化|电气类毕业生~学电气的|国网电工一批班=国网一批;国网电工二批班*=国网二批;国网会计专项班*=国网会计
考研政治|KZ|研究生招生考试|马原,毛中特,时政|报考学术与专业硕士者~准备考研的|考研政治全程班=政治全程班;考研政治冲刺班=政治冲刺班
考研英语|KY|研究生招生考试|阅读,翻译,写作|英语基础薄弱的考生~英语差的|考研英语一全程班=英一班;考研英语二全程班=英二班
四六级|SL|大学英语四六级|词汇,听力,阅读|在校本科生~还在上大学的|四级词汇突破班=四级词汇班;六级词汇突破班=六级词汇班;四级听力突破班*=四级听力班
法考|FK|国家统一法律职业考试|民法,刑法,行政法|法学专业学生及转行者~不是法本的|法考客观题班=客观题班;法考主观题班*=主观题班
初级会计|CK|初级会计职称考试|会计实务,经济法,不定项选择|会计岗位新人~刚入行的|初会实务精讲班=初会实务;初会经济法精讲班=初会经济法
中级会计|ZK|中级会计职称考试|中级实务,财务管理,经济法|具备从业年限者~干了几年会计的|中会实务精讲班=中会实务;中会财管精讲班*=中会财管;中会经济法精讲班^=中会经济法
二建|EJ|二级建造师考试|施工管理,工程法规,专业实务|工程类从业人员~在工地上班的|二建施工管理班=二建管理;二建法规速成班=二建法规
消防|XF|一级消防工程师考试|技术实务,综合能力,案例分析|满足工作年限者~干过消防的|一消技术实务班=一消技术;一消案例分析班*=一消案例
护士|HS|护士执业资格考试|基础护理,内外科,妇儿科|护理专业毕业生~学护理的|护资全科通关班=护资全科;护资考前押题班=护资押题
普通话|PT|普通话水平测试|单音节,朗读,命题说话|方言口音较重者~口音重的|普通话二甲速成班=二甲班;普通话一乙冲刺班*=一乙班
行测专项|XC|公务员行测|速算技巧,题型拆解,错题复盘|单一模块薄弱者~某一块特别差的|数量关系专项班=数量班;资料分析专项班=资料班;判断推理专项班=判断班;言语理解专项班*=言语班
申论专项|SX|公务员申论|立意,结构,语言规范|写作得分偏低者~申论老低分的|申论大作文专项班=大作文班;申论小题专项班^=小题班
社工|SG|社会工作者考试|综合能力,工作实务,法规政策|社区从业人员~在社区上班的|社工初级全程班=初级社工;社工中级全程班*=中级社工
遴选|LX|公务员遴选|案例分析,策论,公文改错|在编满两年的公务员~已经上岸的|遴选笔试全程班=遴选笔试;遴选面试全程班*=遴选面试
时政|SD|各类公职考试|月度热点,政策解读,金句积累|长期备考者~慢慢备考的|时政热点月卡=时政月卡;时政热点年卡^=时政年卡
网申|WS|国企校园招聘|简历,测评,群面|求职季毕业生~正在找工作的|国企网申测评班*=网申班;国企群面实战营*=群面营
城投|CT|地方城投公司招聘|经济金融,管理,公文|关注本地国企者~想留本地的|城投公司笔试班^=城投班
"""

TEACHERS = ["陆知行", "沈若谷", "邵一鸣", "贺清越", "方砚秋", "纪云舒", "顾南乔", "温以宁", "江望舒", "白予安", "严守拙", "苏念慈"]


def facts(name, fields, code):
    """The facts of one course, drawn once, so that dialogues and passages agree."""
    rng = random.Random(f"chengla/facts/{name}")
    family, _, exam, content, learners = fields
    a, b, c = content.split(",")
    lead, second = rng.sample(TEACHERS, 2)
    price = rng.randrange(38, 480) * 10 - 1
    hours = rng.choice([24, 32, 40, 48, 56, 64, 72, 96, 120])
    start = rng.choice([(2025, m) for m in range(3, 13)] + [(2026, m) for m in range(1, 4)])
    if name.startswith("2025"):
        start = (2024, rng.randrange(6, 12))
    if name.startswith("2026"):
        start = (2025, rng.randrange(5, 11))
    return {
        "category": family, "exam": exam, "a": a, "b": b, "c": c, "who": learners.split("~")[0], "whoq": learners.split("~")[1],
        "hours": hours, "long": rng.choice([40, 45, 60, 90]), "stages": rng.choice([2, 3, 4]), "mock": rng.choice([3, 4, 6, 8, 10, 12]),
        "sets": rng.choice([800, 1200, 1500, 2000, 3000]), "base": rng.choice(["零起点即可", "须掌握基础题型", "无硬性门槛", "宜完成一轮自学"]),
        "daily": rng.choice([1, 1.5, 2, 2.5, 3]), "weeks": rng.choice([4, 6, 8, 10, 12, 16]),
        "y": start[0], "m": start[1], "d": rng.randrange(1, 29), "slot": rng.choice(["工作日19:30至21:30", "周末9:00至11:30", "每晚20:00至21:40", "周二四六19:00至21:00", "周末14:00至17:00"]),
        "times": rng.choice([2, 3, 4, 5]), "lead": lead, "second": second, "exp": rng.randrange(5, 18), "rate": rng.randrange(91, 99),
        "ratio": rng.choice([30, 50, 80, 100, 150]), "reply": rng.choice([2, 4, 6, 12, 24]), "price": price,
        "parts": rng.choice([3, 6, 12]), "deposit": rng.choice([99, 199, 299, 499]), "code": code,
        "off": rng.choice([50, 80, 100, 150, 200, 300]), "group": rng.choice([2, 3, 5]), "groupoff": rng.choice([30, 60, 90, 120]),
        "until": f"{start[1] % 12 + 1}月{rng.randrange(1, 29)}日", "old": rng.choice([85, 88, 90, 92, 95]),
        "free": rng.choice([3, 5, 7, 10, 15]), "used": rng.choice([10, 15, 20, 30]), "back": rng.choice([50, 60, 70, 80, 100]),
        "proof": rng.choice([15, 20, 30]), "arrive": rng.choice([5, 7, 10, 15]), "moves": rng.choice([1, 2, 3]), "fee": rng.choice([0, 50, 100, 200]),
        "before": rng.choice([3, 5, 7, 10]), "again": rng.choice([1, 2]), "pause": rng.choice([3, 6, 9, 12]),
        "valid": rng.choice([6, 9, 12, 18, 24]), "devices": rng.choice([2, 3, 4]), "books": rng.choice([2, 3, 4, 5, 6, 8]),
        "ship": rng.choice([2, 3, 5, 7]), "speed": rng.choice(["0.75至2倍", "0.5至3倍", "1至2倍"]),
    }


TEMPLATES = {
    "outline": [
        "{n}面向{exam}，共{hours}课时，每课时{long}分钟，分{stages}个阶段讲授{a}、{b}与{c}。配套模拟测验{mock}套、题库{sets}道，[结课提交总测报告|每阶段设阶段测评]。",
        "【教学大纲】{n}总计{hours}课时（单课时{long}分钟），核心模块为{a}、{b}、{c}，按{stages}阶段推进。含全真模考{mock}次及{sets}题训练库，[附错题归因|附知识图谱]。",
        "课程体系：{stages}段式安排，依次覆盖{a}、{b}和{c}，合计{hours}个课时，时长各{long}分钟。{n}同步开放{sets}道练习与{mock}套模考卷，[随堂测计入学情|对应{exam}现行大纲]。"],
    "audience": [
        "{n}适合{who}，先修要求：{base}。建议每日投入{daily}小时，完成全程约需{weeks}周，在职人员可[按节奏顺延|申请督学排课]。",
        "【招生对象】{who}。{n}的入学条件为{base}，预期学习周期{weeks}周，日均{daily}小时，在职与全日制均可修读[，学历以招考公告为准|]。",
        "学情要求说明：报读{n}者以{who}为主，基础方面{base}。按{weeks}周计划、每天{daily}小时安排，可兼顾工作，入学前可做摸底测评。"],
    "schedule": [
        "{n}（编号{code}）开班日期为{y}年{m}月{d}日，授课时段{slot}，每周{times}次。[逢法定节假日顺延|停课另行公告]，持续{weeks}周，迟到者可看当日回放。",
        "【教学日程】开班：{y}年{m}月{d}日；频次：每周{times}次；时段：{slot}。{n}课程编号{code}，周期{weeks}周，缺课以录播补足[，课表提前一日推送|]。",
        "直播安排：{code}，{n}自{y}-{m:02d}-{d:02d}起授课，{slot}进行，周频次{times}次，[预计|计划]{weeks}周结课，缺勤或迟到以录播补学，入口提前三十分钟开放。"],
    "teacher": [
        "{n}由{lead}主讲，教龄{exp}年，专攻{a}；{second}负责{b}与答疑。学员满意度{rate}%，师生配比1:{ratio}，[课后问题|作业批改]{reply}小时内回复。",
        "【师资配置】主讲教师{lead}（从教{exp}年）；辅导教师{second}。{n}近一期好评率{rate}%，每{ratio}名学员配一名助教，答疑响应时限{reply}小时，[含晚间值班|节假日不中断]。",
        "教学团队：{lead}、{second}联合授课，前者拥有{exp}年{exam}辅导经历。{n}采用1:{ratio}助教制，疑问将于{reply}小时内解答，满意率{rate}%，[不更换主讲|名师全程跟班]。"],
    "price": [
        "{n}（{code}）课程定价{price}元，含教材与题库。可先付定金{deposit}元锁定席位，尾款支持{parts}期免息，[不另收资料费|学费含税]，开具培训费电子票据。",
        "【学费标准】编号{code}，{n}收费{price}元/人；预约金{deposit}元可抵扣。支付方式含一次付清与分{parts}期，[分期手续费由机构承担|信用卡与花呗均可]，无其他附加费用。",
        "收费说明：{n}全款{price}元，课程编号{code}。定金{deposit}元，分期期数为{parts}期，零利息，教材费已包含[，不含食宿|]，付款后即时开通学习权限。"],
    "promo": [
        "{n}优惠方案：{until}前报名立减{off}元；{group}人拼团每人再减{groupoff}元；[老学员享|结业学员续报享]{old}折，各项减免[不可叠加|择优使用]。",
        "【限时减免】{group}人成团，每位减{groupoff}元；早鸟价截至{until}，直降{off}元。复购{n}的老学员按{old}%计价，[优惠不折现|以最高一项为准]。",
        "报名立减活动面向{n}：早鸟{off}元（{until}截止），拼团满{group}人人均减{groupoff}元，[学生证不另优惠|邀请码与拼团互斥]，往期学员凭学号享原价{old}%。"],
    "refund": [
        "{n}退费规则：开课{free}日内且学习进度未超{used}%可全额退；之后按剩余课时折算。协议学员考试未通过，凭成绩单退{back}%，须在出分后{proof}日内申请，{arrive}个工作日到账。",
        "【退费与协议】{n}开班后{free}日为冷静期，进度不高于{used}%全退，[逾期|超出]按课时扣除。未通过{exam}者退还学费{back}%，出分{proof}日内提交成绩单，款项{arrive}个工作日原路返回。",
        "退费标准如下：冷静期{free}天，进度上限{used}%，满足者全额返还；{n}协议班考试未达线凭官方成绩单退{back}%，[缺考不适用|限本人]，申请期限出分后{proof}日，审核及到账{arrive}个工作日。"],
    "transfer": [
        "{n}可转班{moves}次，须在开课前{before}日提出，手续费{fee}元，差价多退少补。因故休学可保留学籍{pause}个月，[次年|下一期]免费重修{again}次。",
        "【调换与重修】学员可申请由{n}转入同级班型，上限{moves}次，提前{before}日办理，收取{fee}元。学籍暂停期限最长{pause}个月；未通过者复训{again}次，[不另收费|仅限线上]。",
        "学籍变更：转出{n}需于开课前{before}日申请，共可调换{moves}次，服务费{fee}元；休学保留期{pause}个月。重修权益{again}次，[与原班同内容|不含纸质教材]，以班主任登记为准。"],
    "replay": [
        "{n}直播结束后两小时上传回放，有效期{valid}个月，支持{speed}变速。账号最多登录{devices}台终端，纸质教材{books}册，[报名|付款]后{ship}日内寄出，[可离线缓存|回放可下载至客户端]。",
        "【学习服务】回放观看期限{valid}个月，可同时绑定{devices}台设备；{n}配套讲义{books}本，{ship}日内发货。播放器提供{speed}调速及离线缓存，[到期可付费延长|过期不补]。",
        "资料与回放：{n}附赠教材{books}册，出库时限{ship}日；录播保留{valid}个月，{speed}速可调、支持缓存，[手机、平板及电脑|各类终端]合计不超过{devices}台。"],
}
LABELS = [("outline", "教学大纲与课时", "讲什么", "课程大纲", "technical"), ("audience", "招生对象与先修要求", "适合谁", "招生简章", "general"),
          ("schedule", "开班日期与授课时段", "开课时间", "教务日历", "general"), ("teacher", "师资与答疑", "老师", "师资介绍", "general"),
          ("price", "学费与支付方式", "价格", "收费公示", "general"), ("promo", "优惠减免", "优惠", "活动公告", "general"),
          ("refund", "退费与协议", "退费", "学员协议", "compliance"), ("transfer", "转班休学与重修", "转班", "学员协议", "compliance"),
          ("replay", "回放终端与教材", "回放和讲义", "服务说明", "technical")]
ASPECTS = {"course": [Aspect(*row, TEMPLATES[row[0]]) for row in LABELS]}
attach(ASPECTS["course"], QUESTIONS)
attach(ASPECTS["course"], more.QUESTIONS, "train")
globals().update(FRAMES)
PROFILES = [Profile("course", *row) for row in PROFILE_TABLE]
widen(globals(), PROFILES, "course", more)


def entities():
    """All courses, in the order of the table."""
    out = []
    for line in FAMILIES.strip().splitlines():
        *fields, members = line.split("|")
        for at, member in enumerate(members.split(";")):
            name, aliases, hold = parse_member(member)
            year = name[2:4] if name[:2] == "20" else "25"
            code = f"CL-{fields[1]}-{year}-{at + 1:02d}"
            entity = Entity(name, aliases, [code], fields[0], "course", hold)
            entity.facts = facts(name, fields, code)
            out.append(entity)
    return out
